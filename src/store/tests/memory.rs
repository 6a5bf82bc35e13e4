//! Memory does not grow with the number of entries.

use super::*;

const CHILD: &str = "COPYD_TEST_WALKED_CATALOG";
const ROWS: u64 = 1_000_000;

/// Peak resident memory of this process, in KiB.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("status");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("VmHWM");
    line.split_whitespace().nth(1).expect("number").parse().expect("number")
}

#[test]
fn a_directory_of_a_million_rows_is_written_walked_and_paged_in_bounded_memory() {
    let name = "store::tests::memory::a_directory_of_a_million_rows_is_written_walked_and_paged_in_bounded_memory";
    let Some(scratch) = handed_over(CHILD) else {
        let scratch = tempfile::tempdir().expect("scratch");
        let child = child_of(name, CHILD, scratch.path()).wait_with_output().expect("child");
        assert!(child.status.success());
        return assert!(String::from_utf8_lossy(&child.stdout).contains("all counted"));
    };
    let before = peak_kib();
    let mut catalog = new_catalog(&scratch);
    let writer = catalog.writer().expect("writer");
    writer.send(rows_batch(vec![root()])).expect("send");
    for start in (0..ROWS).step_by(1000) {
        let rows = (start..start + 1000).map(|n| file(1, format!("file-{n:07}").as_bytes(), n)).collect();
        writer.send(rows_batch(rows)).expect("send");
    }
    writer.finish().expect("finish");
    let reader = catalog.reader().expect("reader");
    let mut walked = 0;
    reader
        .for_each_sorted_by_path(&mut |_, _| {
            walked += 1;
            Ok(())
        })
        .expect("walk");
    assert_eq!(walked, ROWS + 1);
    let (mut paged, mut page, mut last) = (0, DirectoryRows::default(), None::<Vec<u8>>);
    loop {
        reader.page_after(1, last.as_deref(), 8192, &mut page).expect("page");
        let Some(row) = page.len().checked_sub(1).and_then(|n| page.at(n)) else { break };
        last = Some(row.name.to_vec());
        paged += page.len() as u64;
    }
    assert_eq!(paged, ROWS);
    let grown = (peak_kib() - before) >> 10;
    // The queue holds 64 batches of 1,000 rows, about 20 MiB; the writer's page cache 16 MiB.
    assert!(grown < 64, "{grown} MiB for {ROWS} rows");
    println!("\nall counted: {grown} MiB");
}
