#![no_main]

#[path = "../entries/input.rs"]
mod input;
#[path = "../entries/resolv_conf.rs"]
mod resolv_conf;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| resolv_conf::run(bytes));
