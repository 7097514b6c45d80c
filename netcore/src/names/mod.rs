//! Names inside sandboxes, as texts of files: `/etc/hosts` and `/etc/hostname`. And names for sandboxes that were given
//! none. No I/O.

mod generated;
pub mod hosts;

pub use generated::generate;
