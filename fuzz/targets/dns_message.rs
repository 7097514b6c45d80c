#![no_main]

#[path = "../entries/input.rs"]
mod input;
#[path = "../entries/dns_message.rs"]
mod dns_message;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dns_message::run(bytes));
