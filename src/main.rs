//! The binary: everything is in [`copyd::cli`].

#[global_allocator]
static ALLOCATOR: copyd::sys::Memory = copyd::sys::Memory;

fn main() -> std::process::ExitCode {
    std::process::ExitCode::from(copyd::cli::main() as u8)
}
