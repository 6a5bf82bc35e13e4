-- Schema 2 of a catalog: large files that are under way. Rows go away with the row of entry that says
-- the file is published.

-- A temporary that holds chunks which a crash can't take back. A record of an unknown version, or whose
-- sum is wrong, is as good as none: the file is begun anew.
CREATE TABLE growing(
  dst_ino       INTEGER PRIMARY KEY,  -- of the temporary
  version       INTEGER NOT NULL,     -- of the record
  temporary     BLOB    NOT NULL,     -- its name in the staging directory
  dir           INTEGER NOT NULL,     -- where the entry belongs, as in entry
  name          BLOB    NOT NULL,
  src_dev       INTEGER NOT NULL,     -- the source when its copy began: device minus that of the root
  src_ino       INTEGER NOT NULL,
  size          INTEGER NOT NULL,     -- bytes
  src_mtime_s   INTEGER NOT NULL,
  src_mtime_ns  INTEGER NOT NULL,
  src_ctime_s   INTEGER NOT NULL,
  src_ctime_ns  INTEGER NOT NULL,
  sum           INTEGER NOT NULL      -- check sum of the source's columns
) STRICT;

CREATE TABLE chunk(
  dst_ino  INTEGER NOT NULL,
  chunk    INTEGER NOT NULL,  -- counted from 0, 16 MiB each
  value    BLOB    NOT NULL,  -- what its bytes must hash to, 32 bytes
  sum      INTEGER NOT NULL,  -- check sum over the source's columns, chunk and value
  PRIMARY KEY(dst_ino, chunk)
) STRICT, WITHOUT ROWID;
