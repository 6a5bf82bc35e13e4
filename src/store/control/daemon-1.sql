-- The jobs of one copyd daemon, schema 1. Look at the views: jobs, job_events, failed_entries, losses.

CREATE TABLE job(
  seq                INTEGER PRIMARY KEY,         -- names the job within this file
  id                 TEXT    NOT NULL UNIQUE,     -- UUIDv7: sorts by the time it was made
  project            TEXT    NOT NULL,
  kind               TEXT    NOT NULL,
  state              TEXT    NOT NULL,
  consistency_group  TEXT,
  priority           INTEGER NOT NULL,
  generation         INTEGER NOT NULL,
  created_ms         INTEGER NOT NULL,            -- milliseconds since 1970, as all times here
  updated_ms         INTEGER NOT NULL,
  finished_ms        INTEGER,                     -- only of a job in a final state
  last_event         INTEGER NOT NULL,            -- id of its newest event; 0 for none
  schema             INTEGER NOT NULL,            -- of the record
  record             TEXT    NOT NULL             -- JSON; the columns above repeat parts of it to find jobs by
) STRICT;

-- Each holds all that a list is filtered by, so that no row is touched but those of the page.
CREATE INDEX job_list     ON job(id, project, kind, state, consistency_group);
CREATE INDEX job_project  ON job(project, id, kind, state, consistency_group);
CREATE INDEX job_state    ON job(state, id, project, kind, consistency_group);
CREATE INDEX job_updated  ON job(updated_ms, id, project, kind, state, consistency_group);
CREATE INDEX job_priority ON job(priority, id, project, kind, state, consistency_group);
CREATE INDEX job_group    ON job(project, consistency_group, id) WHERE consistency_group IS NOT NULL;
CREATE INDEX job_unfinished ON job(id) WHERE finished_ms IS NULL;
CREATE INDEX job_finished   ON job(finished_ms) WHERE finished_ms IS NOT NULL;

CREATE TABLE label(
  key    TEXT NOT NULL,
  value  TEXT NOT NULL,
  job    TEXT NOT NULL,                           -- job.id
  PRIMARY KEY(key, value, job)
) STRICT, WITHOUT ROWID;
CREATE INDEX label_job ON label(job);

CREATE TABLE event(
  job    INTEGER NOT NULL,                        -- job.seq
  id     INTEGER NOT NULL,                        -- from 1 for each job, without a gap
  at_ms  INTEGER NOT NULL,
  type   TEXT    NOT NULL,
  data   TEXT    NOT NULL,                        -- JSON, with the type
  PRIMARY KEY(job, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE failure(
  job        INTEGER NOT NULL,                    -- job.seq
  n          INTEGER NOT NULL,                    -- in the order in which they came
  pass       INTEGER NOT NULL,
  class      TEXT    NOT NULL,
  side       TEXT    NOT NULL,
  operation  TEXT    NOT NULL,
  path       BLOB    NOT NULL,                    -- relative to the root, as the file system gave it
  error      TEXT,
  PRIMARY KEY(job, n)
) STRICT, WITHOUT ROWID;

-- All that failed in a pass, also where there were too many to be kept.
CREATE TABLE failure_count(
  job    INTEGER NOT NULL,
  pass   INTEGER NOT NULL,
  class  TEXT    NOT NULL,
  n      INTEGER NOT NULL,
  PRIMARY KEY(job, pass, class)
) STRICT, WITHOUT ROWID;

-- Examples of what the destination can't hold.
CREATE TABLE loss(
  job     INTEGER NOT NULL,                       -- job.seq
  class   TEXT    NOT NULL,
  path    BLOB    NOT NULL,
  detail  TEXT    NOT NULL,
  pass    INTEGER NOT NULL,
  PRIMARY KEY(job, class, path)
) STRICT, WITHOUT ROWID;

-- What was answered to a request that may be sent again.
CREATE TABLE idempotency(
  scope        TEXT    NOT NULL,                  -- whose key it is
  key          TEXT    NOT NULL,
  fingerprint  BLOB    NOT NULL,                  -- of the request
  answer       TEXT    NOT NULL,
  at_ms        INTEGER NOT NULL,
  PRIMARY KEY(scope, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_at ON idempotency(at_ms);

CREATE TABLE consistency_group(
  project     TEXT    NOT NULL,
  name        TEXT    NOT NULL,
  created_ms  INTEGER NOT NULL,
  schema      INTEGER NOT NULL,                   -- of the record
  record      TEXT    NOT NULL,
  PRIMARY KEY(project, name)
) STRICT, WITHOUT ROWID;

CREATE VIEW jobs AS
  SELECT id, project, kind, state, consistency_group, priority,
         record ->> '$.spec.source.export' AS source, record ->> '$.spec.destination.export' AS destination,
         datetime(created_ms / 1000, 'unixepoch') AS created, datetime(updated_ms / 1000, 'unixepoch') AS updated,
         datetime(finished_ms / 1000, 'unixepoch') AS finished, record ->> '$.failure.message' AS failure
  FROM job;

CREATE VIEW job_events AS
  SELECT job.id AS job, event.id, datetime(event.at_ms / 1000, 'unixepoch') AS at, event.type, event.data
  FROM event JOIN job ON job.seq = event.job;

CREATE VIEW failed_entries AS
  SELECT job.id AS job, failure.pass, failure.class, failure.side, failure.operation,
         CAST(failure.path AS TEXT) AS path, failure.error
  FROM failure JOIN job ON job.seq = failure.job;

CREATE VIEW losses AS
  SELECT job.id AS job, loss.class, CAST(loss.path AS TEXT) AS path, loss.detail
  FROM loss JOIN job ON job.seq = loss.job;
