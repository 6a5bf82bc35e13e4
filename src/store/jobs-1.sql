-- The jobs of one copyd state directory, schema 1. Look at the view: jobs.

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
  state             TEXT    NOT NULL CHECK(state IN ('running', 'complete')),
  guard_passed      INTEGER NOT NULL,              -- 1: what stands at the destination was accepted
  created_ms        INTEGER NOT NULL,              -- milliseconds since 1970
  started_ms        INTEGER,                       -- of the last run
  finished_ms       INTEGER,
  summary           TEXT,                          -- JSON, of the last run that ended by itself
  catalog_stamp     TEXT,                          -- of the catalog file when it was last closed in order
  copyd             TEXT    NOT NULL,              -- version of the last run
  UNIQUE(kind, source_key, destination_key)
) STRICT, WITHOUT ROWID;

CREATE VIEW jobs AS
  SELECT id, kind, state, CAST(source_path AS TEXT) AS source, CAST(destination_path AS TEXT) AS destination,
         datetime(created_ms / 1000, 'unixepoch') AS created, datetime(started_ms / 1000, 'unixepoch') AS started,
         datetime(finished_ms / 1000, 'unixepoch') AS finished, options, summary, copyd
  FROM job;
