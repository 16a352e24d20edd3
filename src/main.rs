//! Arguments in, an exit code out.

use std::process::ExitCode;

/// Decided by the memory of idle connections, of which half is given back with it and nothing with glibc's (measured by
/// `benches/compare/run streams`); it also takes 3,000 instructions less for a request (callgrind).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cloakroom::cli::main()
}
