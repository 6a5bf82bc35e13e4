-- The catalog of one copyd job, schema 1. Open it with: sqlite3 -readonly catalog.sqlite
-- Start at the views: failed, hot, tree. Numbers without sign from 2^63 show as negative ones.

-- A row for each entry of the share. The root itself stands in directory 0 under an empty name, and
-- is directory 1. No column says NOT NULL, because each such check costs time on every insert and sum
-- notices more.
CREATE TABLE entry(
  dir           INTEGER,  -- id of the directory that holds the entry
  name          BLOB,     -- one component, raw bytes
  child         INTEGER,  -- id of a directory entry's own rows, else null
  src_ino       INTEGER,  -- with the device, the group of hard links
  nlink         INTEGER,  -- names of the inode at the source
  size          INTEGER,  -- bytes
  src_mtime     INTEGER,  -- nanoseconds since 1970; a time outside 1677..2262 lies in extra
  src_ctime     INTEGER,
  mode          INTEGER,  -- st_mode whole: type and permissions
  uid           INTEGER,
  gid           INTEGER,
  dst_ino       INTEGER,  -- the published inode; null until it stands at the destination
  dst_mtime     INTEGER,
  dst_ctime     INTEGER,
  proof         INTEGER,  -- 0 assumed, 1 proved
  digest        BLOB,     -- of the content: one byte for its kind, then 32 bytes
  target        BLOB,     -- of a symlink
  xattr_digest  BLOB,     -- of extended attributes and ACLs, 32 bytes
  extra         BLOB,     -- pairs of a tag byte and 8 bytes: 1 device at the source minus that of the root,
                          -- 2 number of a device node, 3..6 seconds of a far time in src_mtime, src_ctime,
                          -- dst_mtime, dst_ctime; null nearly always
  sum           INTEGER,  -- check sum of the row: copyd refuses a row that was altered
  PRIMARY KEY(dir, name)
) STRICT, WITHOUT ROWID;

-- What failed in the last pass: one row for an entry and a side.
CREATE TABLE failure(
  path       BLOB NOT NULL,        -- from the root, raw bytes
  side       TEXT NOT NULL,        -- source or destination
  class      TEXT NOT NULL,
  operation  TEXT NOT NULL,
  error      TEXT,                 -- what the system said
  remedy     TEXT NOT NULL,
  PRIMARY KEY(path, side)
) STRICT, WITHOUT ROWID;

-- Of the last completed pass; gone as soon as a row of entry changes.
CREATE TABLE digests(
  one       INTEGER PRIMARY KEY CHECK(one = 1),
  share     BLOB NOT NULL,
  metadata  BLOB NOT NULL
) STRICT;

CREATE TABLE meta(
  key    TEXT PRIMARY KEY,
  value  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
-- next_directory: above every child. durable: counts flushes that reached stable storage.
INSERT INTO meta(key, value) VALUES ('next_directory', 2), ('durable', 0);

CREATE VIEW failed AS
  SELECT CAST(path AS TEXT) AS path, side, class, operation, error, remedy FROM failure WHERE class <> 'hot';

CREATE VIEW hot AS
  SELECT CAST(path AS TEXT) AS path, side, operation, error FROM failure WHERE class = 'hot';

CREATE VIEW tree AS
  WITH RECURSIVE directory(id, prefix) AS (
    SELECT 1, ''
    UNION ALL
    SELECT child, prefix || CAST(name AS TEXT) || '/' FROM directory JOIN entry ON dir = id WHERE child IS NOT NULL
  )
  SELECT prefix || CAST(name AS TEXT) AS path, size, printf('%o', mode & 4095) AS mode, uid, gid,
         datetime(src_mtime / 1000000000, 'unixepoch') AS modified, lower(hex(substr(digest, 2))) AS digest,
         iif(dst_ino IS NULL, 'pending', iif(proof, 'proved', 'assumed')) AS state
  FROM directory JOIN entry ON dir = id;
