//! The only room with system calls that need `unsafe`. Each of its functions is safe to call.

#![allow(unsafe_code, reason = "this is where netcore talks to the kernel itself")]

pub(crate) mod child;
pub(crate) mod enter;
pub(crate) mod sctp;
