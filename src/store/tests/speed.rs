//! The rates that the noop and small-file targets rest on, in CPU time, which other load on the
//! machine changes little. Debug builds are several times slower: they count rows and print.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use super::*;

const DIRECTORIES: u64 = 600;
const FILES: u64 = 1000;
const ROWS: u64 = DIRECTORIES * FILES;

/// In a parent: runs the test `name` in a process of its own, where no other test's CPU time counts,
/// shows what it measured, and answers true. In that child: false.
fn alone(name: &str) -> bool {
    const CHILD: &str = "COPYD_TEST_MEASURED";
    if handed_over(CHILD).is_some() {
        return false;
    }
    let child = child_of(name, CHILD, Path::new("yes")).wait_with_output().expect("child");
    let text = String::from_utf8_lossy(&child.stdout);
    print!("{text}");
    assert!(child.status.success() && text.contains("rows/s of CPU"), "the measurement did not run");
    true
}

fn cpu() -> Duration {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).expect("nanoseconds"))
}

/// Runs `work` over `rows` rows and prints their rates; a release build holds `floor` a second.
fn measured<T>(what: &str, rows: u64, floor: u64, work: impl FnOnce() -> T) -> T {
    let (wall, before) = (Instant::now(), cpu());
    let result = work();
    let (wall, spent) = (wall.elapsed(), cpu().saturating_sub(before));
    let rate = |time: Duration| u128::from(rows) * 1_000_000_000 / time.as_nanos().max(1);
    println!("{what}: {rows} rows, {} rows/s of CPU, {} rows/s of wall time, {wall:?}", rate(spent), rate(wall));
    assert!(
        cfg!(debug_assertions) || rate(spent) >= u128::from(floor),
        "{what}: {} rows/s, wanted {floor}",
        rate(spent)
    );
    result
}

fn batches() -> Vec<Batch> {
    let mut batches = vec![rows_batch(vec![root()])];
    for d in 0..DIRECTORIES {
        let mut rows: Vec<Row> =
            (0..FILES).map(|n| file(d + 2, format!("file-{n:07}").as_bytes(), d * FILES + n)).collect();
        rows.push(directory(1, format!("dir-{d:05}").as_bytes(), d + 2));
        batches.push(rows_batch(rows));
    }
    batches
}

#[test]
fn rows_are_written_and_read_at_the_rates_the_targets_need() {
    if alone("store::tests::speed::rows_are_written_and_read_at_the_rates_the_targets_need") {
        return;
    }
    let scratch = tempfile::tempdir().expect("scratch");
    let mut catalog = new_catalog(scratch.path());
    let writer = catalog.writer().expect("writer");
    let send = |batches: Vec<Batch>| {
        for batch in batches {
            writer.send(batch).expect("send");
        }
        writer.flush(false).expect("flush");
    };
    let first = batches();
    measured("insert in key order", ROWS, 300_000, || send(first));
    let second = batches();
    measured("replace in key order", ROWS, 200_000, || send(second));
    writer.finish().expect("finish");
    let bytes = std::fs::metadata(catalog.path()).expect("stat").len();
    println!("{} bytes a row", bytes / ROWS);

    let reader = catalog.reader().expect("reader");
    let mut rows = DirectoryRows::default();
    let found = measured("read by directory", ROWS, 500_000, || {
        (0..DIRECTORIES)
            .map(|d| {
                reader.directory(d + 2, &mut rows).expect("directory");
                rows.len() as u64
            })
            .sum::<u64>()
    });
    assert_eq!(found, ROWS);
    let walked = measured("walk in path order", ROWS, 500_000, || {
        let mut count = 0;
        reader
            .for_each_sorted_by_path(&mut |path, _| {
                count += path.len().min(1) as u64;
                Ok(())
            })
            .expect("walk");
        count
    });
    assert_eq!(walked, ROWS + DIRECTORIES);
    let points = 100_000;
    let look_up = || {
        (0..points)
            .filter(|n| {
                let name = format!("file-{:07}", n * 7 % FILES);
                reader.get(n % DIRECTORIES + 2, name.as_bytes()).expect("get").is_some()
            })
            .count() as u64
    };
    assert_eq!(measured("look up one by one", points, 30_000, look_up), points);
    let held = reader.snapshot().expect("snapshot");
    assert_eq!(measured("look up one by one in a snapshot", points, 100_000, look_up), points);
    drop(held);
    measured("check the whole file", ROWS, 100_000, || catalog.check().expect("check"));
}

#[test]
fn small_directories_cost_little_more_than_their_rows() {
    if alone("store::tests::speed::small_directories_cost_little_more_than_their_rows") {
        return;
    }
    let scratch = tempfile::tempdir().expect("scratch");
    let mut catalog = new_catalog(scratch.path());
    let mut rows = vec![root()];
    for d in 0..6_000_u64 {
        rows.push(directory(1, format!("dir-{d:05}").as_bytes(), d + 2));
        rows.extend((0..9).map(|n| file(d + 2, format!("file-{n:07}").as_bytes(), d * 9 + n)));
    }
    let total = rows.len() as u64;
    write_rows(&mut catalog, rows);
    let reader = catalog.reader().expect("reader");
    let mut count = 0;
    measured("walk of 10 entries a directory", total, 300_000, || {
        reader
            .for_each_sorted_by_path(&mut |_, _| {
                count += 1;
                Ok(())
            })
            .expect("walk");
    });
    assert_eq!(count, total);
    let mut page = DirectoryRows::default();
    let found = measured("read of 10 entries a directory", total, 200_000, || {
        (1..6_002)
            .map(|d| {
                reader.directory(d, &mut page).expect("directory");
                page.len() as u64
            })
            .sum::<u64>()
    });
    assert_eq!(found, total - 1);
    let _held = reader.snapshot().expect("snapshot");
    let found = measured("the same in a snapshot", total, 300_000, || {
        (1..6_002)
            .map(|d| {
                reader.directory(d, &mut page).expect("directory");
                page.len() as u64
            })
            .sum::<u64>()
    });
    assert_eq!(found, total - 1);
}
