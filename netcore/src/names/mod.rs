//! Names inside sandboxes, as texts of files: `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf`. And names for sandboxes that were given
//! none. No I/O.

mod generated;
pub mod hosts;
pub mod resolv_conf;

pub use generated::generate;
