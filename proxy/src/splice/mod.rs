//! Pipes for `splice(2)`: a pool of them, their sizes, and when a direction has earned one.
//!
//! A pipe costs two descriptors and counts against the user's pipe budget (`pipe-user-pages-soft`), so a connection
//! gets one only after [`Bulk`] saw it move data in bulk, and gives it back, empty, when it turns chatty. Without pipes
//! (descriptors or budget exhausted) everything works by copying.

mod bulk;
mod pool;

pub use bulk::{Bulk, Verdict};
pub use pool::{Pipe, Pool};
