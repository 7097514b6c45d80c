#![no_main]

#[path = "../entries/input.rs"]
mod input;
#[path = "../entries/hosts.rs"]
mod hosts;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hosts::run(bytes));
