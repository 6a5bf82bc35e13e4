//! `copyd::fuzzing::link` for libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| copyd::fuzzing::link(data));
