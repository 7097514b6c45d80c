//! Names inside sandboxes, as texts of files: `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf`; what links put there and into the
//! environment. And names for sandboxes that were given none. No I/O.

mod generated;
pub mod hosts;
pub mod links;
pub mod resolv_conf;

pub use generated::generate;
