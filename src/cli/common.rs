//! What the verbs that run the engine share.

use std::path::Path;

use super::args::OutputArgs;
use super::output::Detail;
use crate::worker::escape_path;

/// How much is printed.
pub const fn detail(output: &OutputArgs) -> Detail {
    Detail { verbose: output.verbose, itemize: output.itemize_changes }
}

/// The first line: what lies in SRC will lie in DST, whatever slashes were written.
pub fn headline(source: &Path, destination: &Path) -> String {
    format!("{} -> {}", inside(source), inside(destination))
}

/// `DIR/x`: something in that directory.
pub fn inside(directory: &Path) -> String {
    format!("{}/x", escape_path(directory).trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_says_that_contents_go_into_the_destination_whatever_the_slashes() {
        for (source, destination) in [("/a/b", "/c"), ("/a/b/", "/c//")] {
            assert_eq!(headline(Path::new(source), Path::new(destination)), "/a/b/x -> /c/x");
        }
        assert_eq!(headline(Path::new("/"), Path::new("./n\n")), "/x -> ./n\\#012/x");
    }
}
