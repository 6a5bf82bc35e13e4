//! Tables for people: columns that line up, a heading, no lines drawn.
//!
//! Cells are escaped by whoever fills them. On a terminal a table keeps to its width; into a file or a pipe
//! every row is one line, however long, so that `grep` and `awk` have it whole.

use std::io::{self, IsTerminal as _};

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

/// A table with these headings; those that begin with `>` align to the right.
pub fn table(headings: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_content_arrangement(if io::stdout().is_terminal() {
        ContentArrangement::Dynamic
    } else {
        ContentArrangement::Disabled
    });
    table.set_header(headings.iter().map(|heading| heading.trim_start_matches('>')));
    for row in rows {
        table.add_row(row);
    }
    for (at, heading) in headings.iter().enumerate() {
        if let Some(column) = table.column_mut(at) {
            column.set_padding((0, 2));
            if heading.starts_with('>') {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_numbers_stand_to_the_right() {
        let rows = [vec!["a".to_owned(), "7".into()], vec!["longer".into(), "1,024".into()]];
        assert_eq!(table(&["NAME", ">BYTES"], rows), "NAME    BYTES\na           7\nlonger  1,024");
    }
}
