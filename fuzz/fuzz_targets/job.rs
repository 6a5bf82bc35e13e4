//! `copyd::fuzzing::job` for libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| copyd::fuzzing::job(data));
