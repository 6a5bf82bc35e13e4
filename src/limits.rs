//! Every bound of copyd: name, unit, reason, one home.

use std::time::Duration;

/// Examples of one class of loss that are sent as events and logged; the rest is only counted,
/// because a hundred million lines help nobody.
pub const LOSS_EXAMPLES: u64 = 20;

/// One block of data in flight, in bytes. It is hashed between read and write, so it has to stay
/// in the second-level cache (512 KiB to 2 MiB on today's servers) together with its copy.
pub const BLOCK_BYTES: usize = 256 << 10;

/// Offsets and lengths of reads are multiples of this, in bytes, so that the same machine serves
/// direct I/O: no file system here asks for more than a page.
pub const ALIGNMENT: u64 = 4096;

/// Operations that one ring keeps in flight. Enough to keep a disk's queue full (deeper queues
/// gained nothing), little enough that its buffers, slots × block, stay within 8 MiB, which is
/// the usual RLIMIT_MEMLOCK of a service.
pub const RING_SLOTS: usize = 32;

/// Kernel threads that one ring may use for operations that would block: one for each slot,
/// because NFS and SMB punt every one of them.
pub const RING_WORKERS: u32 = 32;

const _: () = assert!((BLOCK_BYTES as u64).is_multiple_of(ALIGNMENT));
const _: () = assert!(RING_SLOTS * BLOCK_BYTES <= 8 << 20);

/// Entries that a listing hands over at a time. Large enough to sort usefully by inode, small
/// enough that a directory of 10^6 entries costs a page of names at the source.
pub const LISTING_PAGE: usize = 2048;

/// Entries of one directory beyond which its listing is given up, where nothing else was asked
/// (`--max-dir-entries`): no file system here holds as many, so it is a server that lists without end.
pub const DIRECTORY_ENTRIES_MAX: u64 = 100_000_000;

/// Levels of directories below a root. A tree that goes deeper is a server's that never ends: a path
/// of so many names of one byte could hardly be written down.
pub const LEVELS_MAX: u32 = 100_000;

/// Bytes of holes in one file up to which a proof that reads the source again (`verify`,
/// `--verify=full`) reads them too, instead of believing where the file system says that data lies.
/// Larger ones are believed: they would take minutes to hours.
pub const DOUBTED_HOLES_BYTES: u64 = ZERO_BYTES_MAX;

/// Buffer for getdents64, in bytes: one call lists about a thousand entries.
pub const LISTING_BUFFER_BYTES: usize = 64 << 10;

/// Open directories while a tree is removed. Deeper trees are reached by opening again.
pub const REMOVE_HANDLES: usize = 512;

/// A batch is flushed when it holds this many files, ...
pub const BATCH_FILES: usize = 1024;
/// ... or this many bytes, ...
pub const BATCH_BYTES: u64 = 1 << 30;
/// ... or is this old: what a crash makes copyd do again stays small, and the cost of a flush is
/// shared by many.
pub const BATCH_AGE: std::time::Duration = std::time::Duration::from_secs(5);

/// Bytes of large files that are copied before they are flushed for the journal: what a crash makes
/// copyd do again, as of a batch, ...
pub const JOURNAL_BYTES: u64 = BATCH_BYTES;
/// ... or this long after the flush before. A file that grows slowly is flushed seldom, too.
pub const JOURNAL_AGE: std::time::Duration = BATCH_AGE;

/// After a stop was asked for, files and chunks under way may be carried to their end for so long: a
/// ring has half a GiB of chunks in flight, which would be copied again. A run stops within 5 s.
pub const STOP_GRACE: std::time::Duration = std::time::Duration::from_millis(1500);

/// The most that a marker of a share may hold, in bytes: a name, not data.
pub const MARKER_BYTES: u64 = 4096;

/// Files that one worker reads back and renames at a time, so that a batch is shared by all.
pub const PUBLISH_FILES: usize = 128;

/// Times that a file is read back once more because its temporary moved meanwhile, before it is
/// begun again: some servers move a change time when a file is closed, a writer moves it each time.
pub const READ_BACK_AGAIN: u32 = 2;

/// Flushes that may fail before the destination is given up.
pub const FLUSH_FAILURES: u32 = 2;

/// Entries that one worker copies at a time: large enough to share the cost of taking them,
/// small enough that all workers end together.
pub const COPY_ENTRIES: usize = 64;

/// Waiting copy tasks at which a scanning worker carries some out itself: the bound on what the
/// scan may run ahead of the copy.
pub const COPY_TASKS_WAITING: usize = 64;

/// Bytes of the smallest file that a server is asked to copy by itself. What fits one write call of
/// the usual size costs no more round trips than the request to copy it.
pub const OFFLOAD_BYTES_MIN: u64 = 1 << 20;

/// Bytes of one piece of such a copy, least and most. Between two pieces the run can be stopped and
/// its progress seen, and each costs the server a flush of what it copied, so: small at first, as
/// large as the server is fast. The least is an object of CephFS, which copies only whole ones.
pub const OFFLOAD_PIECE_BYTES: std::ops::RangeInclusive<u64> = 4 << 20..=64 << 20;

/// Milliseconds that one piece should take: a cancel has to be done with in 5 s.
pub const OFFLOAD_PIECE_MS: u64 = 1000;

/// How often a file that changes while it is read is begun, before it is left to the next pass.
pub const HOT_ATTEMPTS: u32 = 3;
/// Bytes of one chunk of a file: the unit that one thread hashes at a time. A power of two, because
/// only aligned power-of-two pieces are whole subtrees of BLAKE3; large enough that a chunk's
/// bookkeeping vanishes beside its hashing, small enough that one big file keeps all threads busy.
pub const CHUNK_BYTES: u64 = 1 << 24;

/// Bytes of one block that the hole rule looks at. Part of the meaning of `b3-nonzero`: another
/// number would give other digests.
pub const ZERO_BLOCK_BYTES: u64 = 1 << 20;

/// Bytes of all-zero blocks up to which a file still has its standard hash: hashing so many zeros
/// costs a fraction of a second. Part of the meaning of `b3-nonzero`, as [`ZERO_BLOCK_BYTES`].
pub const ZERO_BYTES_MAX: u64 = 1 << 30;

/// Bytes of one leaf of zeros whose value is kept once it was computed: a read block, so that data
/// is hashed in the pieces that it comes in, and small enough that little but data is hashed around
/// the data of sparse files. The values of [`ZERO_BYTES_MAX`] take 160 KiB.
pub const ZERO_LEAF_BYTES: u64 = 256 << 10;

const _: () = assert!(ZERO_LEAF_BYTES.is_power_of_two() && ZERO_BLOCK_BYTES.is_multiple_of(ZERO_LEAF_BYTES));

// A chunk's non-zero blocks are a bitmap of 16 bits, a block is at least a chunk of BLAKE3's own,
// and a file that can be over the limit of zeros has two chunks or more.
const _: () = assert!(CHUNK_BYTES == 16 * ZERO_BLOCK_BYTES);
const _: () = assert!(ZERO_BLOCK_BYTES.is_power_of_two() && ZERO_BLOCK_BYTES >= 1024);
const _: () = assert!(ZERO_BYTES_MAX >= CHUNK_BYTES);

/// Bytes of the longest line that a manifest's reader holds in memory. Paths have no length limit
/// in a tree that is walked name by name; this is some 40,000 levels of the longest names.
pub const MANIFEST_LINE_BYTES_MAX: usize = 16 << 20;

/// Bytes of short fields that are gathered before they are hashed: enough for BLAKE3's widest steps,
/// and still in the first-level cache.
pub const DIGEST_FIELDS_BYTES: usize = 16 << 10;

/// Bytes that the manifest's writer and reader buffer for each file: some 1,000 lines a call.
pub const MANIFEST_BUFFER_BYTES: usize = 128 << 10;

/// Bytes of the longest path that a program can hand to `open(2)`: `PATH_MAX` less its NUL. b3sum
/// can't check longer ones.
pub const OPEN_PATH_BYTES_MAX: usize = 4095;
/// Failed entries of one class that are printed as they happen; the rest is counted, and kept in
/// the log file, because a tree whose server refuses every read would flood the terminal.
pub const FAILURES_SHOWN: u64 = 100;

/// Data threads that `--jobs` accepts. Beyond this each adds only memory and context switches.
pub const JOBS_MAX: usize = 1024;

/// Times a second that the terminal's progress line is drawn: smooth, and cheap over ssh.
pub const PROGRESS_HZ: u8 = 5;

/// Between two plain progress lines where there is no terminal.
pub const PLAIN_LINE_EVERY: Duration = Duration::from_secs(30);

/// Between two progress events of `--json`.
pub const PROGRESS_EVENT_EVERY: Duration = Duration::from_secs(1);

/// What a shown rate looks back on: long enough to be calm, short enough to be now.
pub const RATE_WINDOW: Duration = Duration::from_secs(5);

/// Longest filter pattern in bytes: rsync's MAXPATHLEN less its end mark. A longer one could match
/// no path that rsync knows, and bounds what a pattern costs to compile.
pub const FILTER_PATTERN_BYTES_MAX: usize = 4095;

/// Smallest rate limit in bytes a second, as rsync's `--bwlimit` has it: anything less is a wrong
/// unit, and would look like a hang.
pub const RATE_BYTES_PER_SECOND_MIN: u64 = 512;

/// Largest size that an option can give, in bytes: that of the kernel's signed file offsets.
pub const SIZE_BYTES_MAX: u64 = i64::MAX as u64;

/// What an idle throttle saves up, in milliseconds of its rate: enough that a thread which wakes
/// late doesn't lower the rate, short enough that a link sees no bursts.
pub const THROTTLE_BURST_MS: u64 = 100;

/// The least that an idle throttle saves up, in bytes, so that at low rates too one block can go
/// at once.
pub const THROTTLE_BURST_BYTES_MIN: u64 = 1 << 20;

/// Longest sleep of a throttled thread between two looks at the request to stop, in milliseconds:
/// half of the 100 ms in which a signal has to end the wait.
pub const THROTTLE_NAP_MS: u64 = 50;
/// Bytes of a database page. Rows of about 150 bytes make 50 to a page: few enough levels for point
/// lookups, few enough bytes to write again when one row changes.
pub const CATALOG_PAGE_BYTES: u32 = 8 << 10;

/// KiB of page cache of the catalog's writer: the path to the rightmost leaf of every directory that
/// is being written stays in memory.
pub const CATALOG_WRITER_CACHE_KIB: u32 = 16 << 10;

/// KiB of page cache of each reader of a catalog. Rows are read once and in order.
pub const CATALOG_READER_CACHE_KIB: u32 = 2 << 10;

/// Pages of write-ahead log after which the catalog's writer checkpoints (32 MiB): seldom enough
/// that a page written often is copied once.
pub const CATALOG_CHECKPOINT_PAGES: u32 = 4096;

/// Bytes that a write-ahead log file keeps on disk after a checkpoint.
pub const CATALOG_JOURNAL_BYTES: u32 = 64 << 20;

/// Batches that wait for the catalog's writer before a sender does: bounds memory and lets the
/// writer fold several into one transaction.
pub const CATALOG_QUEUE_BATCHES: usize = 64;

/// Rows after which the writer ends a transaction though more batches wait, so that a kill repeats
/// little work and one transaction's pages stay in the cache.
pub const CATALOG_TRANSACTION_ROWS: usize = 32 << 10;

/// Rows of catalog pages that a walk in path order keeps in memory over all its levels.
pub const CATALOG_WALK_ROWS: usize = 16 << 10;

/// Rows that one level of such a walk reads at a time, at most and (when the levels above hold
/// [`CATALOG_WALK_ROWS`] already) at least.
pub const CATALOG_WALK_PAGE_ROWS: std::ops::RangeInclusive<usize> = 16..=2048;

/// Rows of one directory that a reader keeps at a time, 2 MiB of them. What is smaller is read once and
/// looked up in memory; of what is larger, pages are held against the names at the destination, and
/// then those rows are fetched that a page of the source's listing names.
pub const DIRECTORY_ROWS: usize = 8192;

/// Milliseconds to wait for another connection of this process or an operator's `sqlite3`.
pub const DATABASE_BUSY_MS: u64 = 10_000;

/// How long a run waits for a job that another process holds. A worker without a supervisor has
/// [`ORPHAN_GRACE`] to end, and is gone soon after.
pub const JOB_LOCK_PATIENCE: Duration = Duration::from_secs(6);
/// Between two looks at such a job.
pub const JOB_LOCK_RETRY: Duration = Duration::from_millis(50);

/// Between two signs of life of a worker: its supervisor draws the progress line from them.
pub const HEARTBEAT_EVERY: Duration = Duration::from_millis(500);

/// Nothing has moved for so long: the worker looks for who does not answer, and says so.
pub const STALL_AFTER: Duration = Duration::from_secs(2);
/// People are told of it only then: a flush of a busy disk is no news.
pub const STALL_SHOWN_AFTER_S: u64 = 5;
/// The same in a run that is to stop, where whoever waits wants to know why it does not.
pub const STALL_AFTER_STOP: Duration = Duration::from_secs(1);
/// Between two events of one stall.
pub const STALL_EVENT_EVERY: Duration = Duration::from_secs(1);

/// A worker without a sign of life for so long is silent: it hangs as a whole, or was stopped.
pub const SILENCE: Duration = Duration::from_secs(5);

/// What a worker has to come to a safe point after it was asked to stop. Promise P7 gives five seconds
/// until the job is fenced; the fence takes milliseconds.
pub const CANCEL_GRACE: Duration = Duration::from_secs(4);
/// The same for a worker whose supervisor is gone; then it ends at once.
pub const ORPHAN_GRACE: Duration = CANCEL_GRACE;
/// How long a supervisor waits for the state directory when it fences a job: one that hangs is named, and
/// the run ends all the same.
pub const FENCE_WAIT: Duration = Duration::from_secs(3);
/// How long a killed worker may take to go before it counts as one that the kernel does not let die.
pub const KILL_WAIT: Duration = Duration::from_millis(700);
/// How long a worker may take to exit after its last word.
pub const LAST_WORD_WAIT: Duration = Duration::from_secs(3);

/// Between two looks of a supervisor at its worker.
pub const SUPERVISOR_TICK: Duration = Duration::from_millis(100);

/// Lines of a worker that wait for whoever prints them.
pub const WORKER_LINES_WAITING: usize = 1024;

/// Bytes of the longest line that a worker or its supervisor reads: a specification may carry a list of
/// some ten million files.
pub const WIRE_LINE_BYTES_MAX: u64 = 2 << 30;

/// Bytes of all names of one entry's extended attributes: the kernel lists no more
/// (`XATTR_LIST_MAX`, `xattr(7)`).
pub const XATTR_LIST_BYTES: usize = 64 << 10;

/// Bytes of one extended attribute's value: the kernel passes no more (`XATTR_SIZE_MAX`).
pub const XATTR_VALUE_BYTES: usize = 64 << 10;

/// First buffer for a list or a value, in bytes: an ACL of 30 entries, the label and a few
/// attributes of users fit, so that one call is enough.
pub const XATTR_BUFFER_BYTES: usize = 512;

/// Times that a list or value which grows while it is read is read again. The buffer at least
/// doubles each time, so this many lead from the first buffer to the kernel's own limit.
pub const XATTR_TRIES: u32 = 8;

const _: () = assert!(XATTR_BUFFER_BYTES << XATTR_TRIES >= XATTR_LIST_BYTES);

/// Bytes of names and values of one entry's extended attributes together. xfs lets a tenant put
/// hundreds of megabytes on one file; what is beyond is lost by class instead of eating the memory.
pub const XATTR_TOTAL_BYTES: usize = 4 << 20;

/// A file system with more available bytes than this is not full: `ENOSPC` for an extended attribute
/// then means that the attribute does not fit in what the format has for it (ext4: one block). Half
/// of it is the largest that could be needed.
pub const XATTR_ROOM_BYTES: u64 = 2 << 20;

const _: () = assert!(XATTR_ROOM_BYTES >= 2 * (XATTR_LIST_BYTES + XATTR_VALUE_BYTES) as u64);

/// Largest record of the user or group database that is read, in bytes: a group of some ten
/// thousand members.
pub const NAME_RECORD_BYTES: usize = 1 << 20;

/// Small files that the backend probe writes and reads with each backend: enough to fill a queue,
/// little enough to take milliseconds.
pub const PROBE_FILES: usize = 64;

/// Data threads a core on a disk: some wait for flushes and reads while others copy.
pub const DISK_THREADS_PER_CORE: usize = 2;

/// Data threads a core on a server: each call is a round trip, and most of them wait.
pub const SERVER_THREADS_PER_CORE: usize = 8;

/// New directories that grow in the staging area at a time: each holds a descriptor until it has its
/// name, which it gets with the next batch.
pub const NURSERIES: usize = 1024;

/// Directories of the trash that a pass keeps open: those of the entries that are deleted and replaced
/// side by side.
pub const TRASH_HANDLES: usize = 256;

/// Entries that a run removes from the trash because their time is over: some minutes on a slow disk,
/// and the next run goes on.
pub const TRASH_EXPIRY_ENTRIES: u64 = 1_000_000;

/// Bytes of records of equal entries that `verify` keeps in memory for the share's digests: about
/// half a million entries, beyond which they go to an unnamed file in sorted runs.
pub const COMPARE_RECORDS_BYTES: usize = 64 << 20;

// A record is found by a 32-bit offset, with room for a batch that fills the last bytes.
const _: () = assert!(COMPARE_RECORDS_BYTES < 1 << 31);

/// Bytes that the merge of those runs reads at a time from each: at 10^9 entries some thousand runs
/// take 64 MiB.
pub const COMPARE_RUN_BYTES: usize = 64 << 10;

/// Open directories of a comparison, both sides together: enough for every worker's directories and
/// those above them; what is deeper is reached by opening again.
pub const COMPARE_HANDLES: usize = 4096;

/// Levels of directories that a worker keeps open on the way to the entries of a manifest. Deeper
/// ones are opened level by level for each directory anew.
pub const CHAIN_HANDLES: usize = 64;

/// Milliseconds that one thread has to take a signal and give its rights up. It needs microseconds; one
/// that is stuck in the kernel must not keep the run from its start.
pub const NARROWING_MS: u64 = 2000;

/// Files that a run holds open besides its data threads' and its directories: the roots, streams, log,
/// signals, the list of jobs and the catalog's writer with three each, locks.
pub const DESCRIPTORS_OF_A_RUN: usize = 24;

/// Files that one data thread holds open at a time without a ring: its catalog's reader, a listing, a
/// file on each side, its temporary's directory, one that is read back.
pub const DESCRIPTORS_OF_A_WORKER: usize = 8;

/// Directories that may be open however few files may be: a parent and its child on both sides.
pub const DIRECTORIES_OPEN_MIN: usize = 4;

/// Priorities go from 0 to this: enough steps to put one job between two others, few enough to be said.
pub const PRIORITY_MAX: u8 = 100;
/// The priority of a job that names none, with room on both sides.
pub const PRIORITY_DEFAULT: u8 = 50;

/// Bytes of the name of a project, a group or a network namespace: what is part of paths, URLs and metrics.
pub const WORD_BYTES_MAX: usize = 64;
/// Bytes of the name of a label or of an entry of `private_data`, as control planes of this field have it.
pub const NAME_BYTES_MAX: usize = 255;
/// Bytes of such an entry's value, as they have it.
pub const LABEL_VALUE_BYTES_MAX: usize = 1023;
/// Entries of `labels` and of `private_data`: a record stays small enough to be written at each transition.
pub const LABELS_MAX: usize = 64;

/// Seconds that a field of a specification may hold: ten years, and no sum with a time overflows.
pub const SECONDS_MAX: u64 = 3650 * 86_400;
/// Seconds of a schedule: a pass more often than each second would be `--watch`, one a year is none.
pub const SCHEDULE_S: std::ops::RangeInclusive<u64> = 1..=366 * 86_400;
/// Ranges of one window: one for each hour of the day.
pub const WINDOW_RANGES_MAX: usize = 24;

/// Between two passes of a job that says nothing of it: often enough that a forecast or a replica is of use,
/// seldom enough that a scan of some millions of entries has ended before.
pub const SCHEDULE_DEFAULT_S: u64 = 15 * 60;

/// Passes of a migration that says nothing of them, before it is ready though the source still changes much.
pub const PASSES_DEFAULT: u32 = 10;
/// Passes whose facts a job's record keeps, newest last: two days of refreshes.
pub const PASSES_KEPT: usize = 200;
/// Stretches of time for which a job's record keeps how much was moved: a plot of a page's width shows no more,
/// and they are some 5 KiB of what is written at each transition.
pub const SPANS_KEPT: usize = 120;
/// Names of a source that still changes that a record keeps: enough to find who writes.
pub const CHANGED_NAMES_KEPT: usize = 100;
/// Bytes of one such name in the record.
pub const CHANGED_NAME_BYTES_MAX: usize = 4096;

/// Seconds of an expected pass below which another one would gain nothing for the cutover.
pub const SHORT_PASS_S: u64 = 30;
/// In percent of the pass before: a pass that still found more changes than that is no step towards fewer, and
/// another one would find as many.
pub const SHRINKING_PERCENT: u64 = 80;

/// Runs in a row that died without having moved anything, after which a job is failed.
pub const ATTEMPTS_MAX: u32 = 5;
/// Milliseconds before the first attempt after a run that died, ...
pub const BACKOFF_MS_MIN: u64 = 5_000;
/// ... twice as many before each further one, and at most so many.
pub const BACKOFF_MS_MAX: u64 = 300_000;

/// Milliseconds after which a run that was to end and has not said so is killed once more: what its supervisor
/// itself grants, and some for the way.
pub const KILL_AFTER_MS: u64 = 6_000;

/// How long a daemon waits for the one before it to let go of the state.
pub const CONTROL_LOCK_PATIENCE: Duration = Duration::from_secs(5);
/// Prepared statements that the writer and each reader of the daemon's file keep: more than there are, so that no
/// transition waits for the parser.
pub const CONTROL_STATEMENTS: usize = 64;
/// Connections of readers that are kept open between two requests.
pub const CONTROL_READERS_IDLE: usize = 8;
/// Failed entries of one pass that are kept by name; beyond it they are counted by class. Enough for every page
/// that a person looks at; the catalog of the job knows all.
pub const FAILURES_KEPT: usize = 10_000;
/// Jobs that one sweep deletes at a time: the writer is held for some tens of milliseconds.
pub const SWEEP_JOBS: u32 = 100;

/// The latest passes that a forecast looks back on: five hours of refreshes, so that it knows the present load and
/// not last week's.
pub const FORECAST_PASSES: usize = 20;
/// Port of the job API over TCP where a `--url` names none: the one that the example of the daemon's settings
/// listens on.
pub const API_PORT: u16 = 8443;

/// Bytes that are read of a file that holds a token: none is as long, and another file named by mistake
/// must not fill a header.
pub const TOKEN_BYTES_MAX: u64 = 4096;

/// How long a client tries to connect. On one machine it takes microseconds, over a network a lost packet or two.
pub const API_CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// How long a client waits for a whole answer: longer than the daemon gives itself (30 s), so that its own word
/// on what took so long arrives.
pub const API_ANSWER_WITHIN: Duration = Duration::from_mins(1);

/// Bytes of an answer that a client takes: a report with all the failures that are kept of a job is some MiB.
pub const API_ANSWER_BYTES_MAX: usize = 64 << 20;

/// How long a stream of events may be silent before it is opened again. The daemon sends a comment every 15 s.
pub const SSE_SILENCE_MAX: Duration = Duration::from_mins(1);

/// Bytes of one event in a stream: the longest carries a hundred names, each at most 4096 bytes, escaped.
pub const SSE_LINE_BYTES_MAX: usize = 4 << 20;

/// The first wait before a stream of events is opened again, ...
pub const RECONNECT_AFTER: Duration = Duration::from_millis(500);
/// ... and the longest, each being twice the one before: a daemon that starts again needs seconds.
pub const RECONNECT_AFTER_MAX: Duration = Duration::from_secs(10);
/// How long it is tried: an update of the machine's packages starts a daemon again within it, and a script must not
/// wait for one that has gone for good.
pub const RECONNECT_FOR: Duration = Duration::from_mins(5);

/// Bytes of a specification in a file: the daemon takes no longer body (a list of files is most of it).
pub const SPECIFICATION_BYTES_MAX: u64 = 1 << 20;

/// Entries that a report names for each cause or class: enough to see what they have in common.
pub const REPORT_EXAMPLES: usize = 20;

/// Events that stand in a report, the first tenth and the last: a replica of a year has a hundred thousand.
pub const REPORT_EVENTS: usize = 1000;

/// Runs that the spawner starts beside those of jobs: questions about a job's record, and the moment in which one
/// run of a job has ended and its next one has begun.
pub const RUNS_BESIDE_JOBS: usize = 8;

/// Lines of all runs that wait for the link to the daemon; a worker that says more waits itself.
pub const LINK_LINES_WAITING: usize = 4096;

/// Between two looks at a process that the kernel does not let die.
pub const LINGERING_LOOK: Duration = Duration::from_secs(1);

/// Milliseconds of waiting that count as one step of priority: after 17 hours a job of the lowest priority comes
/// before a new one of the highest.
pub const AGE_STEP_MS: u64 = 600_000;

/// Failed entries, or losses, that a run's listener keeps before they are written to the daemon's file: one
/// transaction for them all. They are written with each sign of life in any case.
pub const FAILURES_BUFFERED: usize = 500;

/// Notes of one run that are kept as events: a worker that repeats itself must not push the others out.
pub const NOTES_KEPT: usize = 50;

/// Milliseconds by which the time of day may be off from the daemon's clock and is still followed: what a time
/// server corrects is less, and what somebody sets by hand is more.
pub const CLOCK_FOLLOWED_MS: u64 = 60_000;

/// Events and standings that a subscriber may be behind; a slower one reads what it missed from the store.
pub const NEWS_KEPT: usize = 4096;

/// Requests that wait for the manager; more are refused for the moment, and nothing grows without bound.
pub const ASKS_WAITING: usize = 1024;

/// Lines of the spawner that wait for the manager. When they are so many, the link is not read, and the workers
/// wait.
pub const HEARD_WAITING: usize = 4096;

/// Between two tries to write what the daemon's file did not take.
pub const STORE_RETRY: Duration = Duration::from_secs(1);

/// The longest that the manager sleeps: what depends on the time of day is looked at again.
pub const MANAGER_LOOK: Duration = Duration::from_secs(30);

/// Between two sweeps of what was kept long enough.
pub const SWEEP_EVERY_MS: u64 = 3_600_000;

/// For how long a request may be sent again under its key.
pub const KEYS_KEPT: Duration = Duration::from_hours(24);

/// What jobs have to come to a safe point when the daemon ends; a supervisor ends them by force after
/// [`CANCEL_GRACE`], and five seconds are promised.
pub const SHUTDOWN_GRACE: Duration = Duration::from_millis(4_800);

/// How long the daemon waits for its spawner once every run has ended and the link is closed.
pub const SPAWNER_END_WAIT: Duration = Duration::from_millis(150);
const _: () = assert!(SHUTDOWN_GRACE.as_millis() + SPAWNER_END_WAIT.as_millis() < 5_000);

/// Lines of an inspection that the spawner may send ahead of its reader.
pub const INSPECT_LINES_AHEAD: u64 = 2048;

/// After so many lines that were taken, as many more are asked for.
pub const INSPECT_LINES_STEP: u64 = 512;
const _: () = assert!(INSPECT_LINES_STEP * 2 <= INSPECT_LINES_AHEAD);

/// Lines of an inspection that wait for the connection they go to.
pub const INSPECT_LINES_WAITING: usize = 256;

/// Jobs of an earlier life that are taken up in one transaction: ten thousand of them are then some dozens of
/// flushes and not as many as there are jobs.
pub const TAKEN_UP_TOGETHER: usize = 256;
