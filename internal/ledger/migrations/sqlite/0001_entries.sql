CREATE TABLE ledger_entries (
    chain          TEXT    NOT NULL,
    sequence       INTEGER NOT NULL,
    version        INTEGER NOT NULL,
    entry_key      TEXT    NOT NULL UNIQUE,
    kind           TEXT    NOT NULL,
    source         TEXT    NOT NULL,
    connection     TEXT    NOT NULL,
    project_id     TEXT    NOT NULL,
    clusters       TEXT    NOT NULL,
    workflow_id    TEXT    NOT NULL,
    run_id         TEXT    NOT NULL,
    outcome        TEXT    NOT NULL,
    ticket         TEXT    NOT NULL,
    requested_by   TEXT    NOT NULL,
    approved_by    TEXT    NOT NULL,
    acted_by       TEXT    NOT NULL,
    started_at     TEXT    NOT NULL,
    finished_at    TEXT    NOT NULL,
    recorded_at    TEXT    NOT NULL,
    worker_version TEXT    NOT NULL,
    body           TEXT    NOT NULL,
    previous_hash  TEXT    NOT NULL,
    signing_key_id TEXT    NOT NULL,
    signature      TEXT    NOT NULL,
    hash           TEXT    NOT NULL,
    PRIMARY KEY (chain, sequence)
) STRICT;

CREATE INDEX ledger_entries_finished_at ON ledger_entries (finished_at, chain, sequence);
CREATE INDEX ledger_entries_ticket ON ledger_entries (ticket) WHERE ticket <> '';
CREATE INDEX ledger_entries_workflow ON ledger_entries (workflow_id, run_id);

CREATE TRIGGER ledger_entries_no_update BEFORE UPDATE ON ledger_entries
BEGIN
    SELECT RAISE(ABORT, 'ledger_entries is append-only: UPDATE refused');
END;

CREATE TRIGGER ledger_entries_no_delete BEFORE DELETE ON ledger_entries
BEGIN
    SELECT RAISE(ABORT, 'ledger_entries is append-only: DELETE refused');
END;

-- INSERT OR REPLACE deletes without a DELETE trigger, so an existing row must
-- be refused before it is replaced.
CREATE TRIGGER ledger_entries_next_only BEFORE INSERT ON ledger_entries
BEGIN
    SELECT RAISE(ABORT, 'ledger_entries is append-only: this entry exists already')
     WHERE EXISTS (SELECT 1 FROM ledger_entries
                    WHERE entry_key = NEW.entry_key OR rowid = NEW.rowid
                       OR (chain = NEW.chain AND sequence = NEW.sequence));
    SELECT RAISE(ABORT, 'ledger_entries is append-only: an entry must follow the last one of its chain')
     WHERE NEW.sequence <> 1 + COALESCE((SELECT MAX(sequence) FROM ledger_entries WHERE chain = NEW.chain), 0)
        OR NEW.previous_hash <> COALESCE((SELECT hash FROM ledger_entries
                                           WHERE chain = NEW.chain ORDER BY sequence DESC LIMIT 1), '');
END;
