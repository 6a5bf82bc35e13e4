-- Schema 2 of the list of jobs: who owns a job, and that it was cancelled.

-- SQLite can't change a CHECK in place, so the table is made anew under its name.
DROP VIEW jobs;
ALTER TABLE job RENAME TO job_1;

CREATE TABLE job(
  id                TEXT    NOT NULL PRIMARY KEY,  -- UUIDv7; names the directory jobs/<id>
  kind              TEXT    NOT NULL,              -- migrate or sync
  source_key        BLOB    NOT NULL,              -- identity of the root across mounts
  destination_key   BLOB    NOT NULL,
  source_path       BLOB    NOT NULL,              -- as of the last run
  source_dev        INTEGER NOT NULL,
  source_ino        INTEGER NOT NULL,
  destination_path  BLOB    NOT NULL,
  destination_dev   INTEGER NOT NULL,
  destination_ino   INTEGER NOT NULL,
  options           TEXT    NOT NULL,              -- JSON object of what would change the result
  state             TEXT    NOT NULL CHECK(state IN ('running', 'complete', 'cancelled')),
  epoch             INTEGER NOT NULL DEFAULT 0,    -- one more for each run and each fence; the catalog has the same
  guard_passed      INTEGER NOT NULL,              -- 1: what stands at the destination was accepted
  created_ms        INTEGER NOT NULL,              -- milliseconds since 1970
  started_ms        INTEGER,                       -- of the last run
  finished_ms       INTEGER,
  summary           TEXT,                          -- JSON, of the last run that ended by itself
  catalog_stamp     TEXT,                          -- of the catalog file when it was last closed in order
  copyd             TEXT    NOT NULL,              -- version of the last run
  UNIQUE(kind, source_key, destination_key)
) STRICT, WITHOUT ROWID;

INSERT INTO job(id, kind, source_key, destination_key, source_path, source_dev, source_ino, destination_path,
                destination_dev, destination_ino, options, state, guard_passed, created_ms, started_ms, finished_ms,
                summary, catalog_stamp, copyd)
  SELECT id, kind, source_key, destination_key, source_path, source_dev, source_ino, destination_path,
         destination_dev, destination_ino, options, state, guard_passed, created_ms, started_ms, finished_ms,
         summary, catalog_stamp, copyd
  FROM job_1;

DROP TABLE job_1;

CREATE VIEW jobs AS
  SELECT id, kind, state, CAST(source_path AS TEXT) AS source, CAST(destination_path AS TEXT) AS destination,
         datetime(created_ms / 1000, 'unixepoch') AS created, datetime(started_ms / 1000, 'unixepoch') AS started,
         datetime(finished_ms / 1000, 'unixepoch') AS finished, epoch, options, summary, copyd
  FROM job;
