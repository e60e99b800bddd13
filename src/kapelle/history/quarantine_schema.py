"""The tables of the quarantine's file. A change raises `VERSION`; another version is refused."""

VERSION = 1
SCHEMA = """
CREATE TABLE position (topic TEXT PRIMARY KEY, position INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE kept (
  seq INTEGER PRIMARY KEY,
  part INTEGER NOT NULL, position INTEGER NOT NULL, place INTEGER NOT NULL,
  device_no INTEGER NOT NULL, source TEXT NOT NULL, code TEXT NOT NULL, reason TEXT NOT NULL,
  raw BLOB NOT NULL, print BLOB NOT NULL, size INTEGER NOT NULL,
  received_at_ns INTEGER NOT NULL,
  first_ns INTEGER NOT NULL, last_ns INTEGER NOT NULL, count INTEGER NOT NULL,
  verdict TEXT NOT NULL DEFAULT '', decided_at_ns INTEGER NOT NULL DEFAULT 0,
  decided_by TEXT NOT NULL DEFAULT '', why TEXT NOT NULL DEFAULT '', fix TEXT NOT NULL DEFAULT '',
  state TEXT NOT NULL DEFAULT 'open'
);
CREATE UNIQUE INDEX kept_at ON kept (part, position, place);
CREATE UNIQUE INDEX kept_print ON kept (part, print);
CREATE INDEX kept_state ON kept (state, code, seq);
CREATE INDEX kept_last ON kept (state, last_ns);
CREATE TABLE tally (
  code TEXT NOT NULL, state TEXT NOT NULL, rows INTEGER NOT NULL, PRIMARY KEY (code, state)
) WITHOUT ROWID;
CREATE TRIGGER kept_added AFTER INSERT ON kept BEGIN
  INSERT INTO tally VALUES (new.code, new.state, new.count)
    ON CONFLICT (code, state) DO UPDATE SET rows = rows + new.count;
END;
CREATE TRIGGER kept_changed AFTER UPDATE OF code, state, count ON kept BEGIN
  UPDATE tally SET rows = rows - old.count WHERE code = old.code AND state = old.state;
  INSERT INTO tally VALUES (new.code, new.state, new.count)
    ON CONFLICT (code, state) DO UPDATE SET rows = rows + new.count;
END;
CREATE TRIGGER kept_gone AFTER DELETE ON kept BEGIN
  UPDATE tally SET rows = rows - old.count WHERE code = old.code AND state = old.state;
END;
CREATE TABLE pushed_out (
  code TEXT NOT NULL, state TEXT NOT NULL, rows INTEGER NOT NULL, PRIMARY KEY (code, state)
) WITHOUT ROWID;
"""
