//! `copyd::fuzzing::id_maps` for libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| copyd::fuzzing::id_maps(data));
