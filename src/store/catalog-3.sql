-- Schema 3 of a catalog: whose it is.

-- The epoch of the run that may write, as in the list of jobs. Every transaction of a writer looks at it
-- first, and one with an older epoch commits nothing.
INSERT INTO meta(key, value) VALUES ('epoch', 0);
