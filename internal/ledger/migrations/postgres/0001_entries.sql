CREATE TABLE ledger_entries (
    chain          TEXT   COLLATE "C" NOT NULL,
    sequence       BIGINT             NOT NULL,
    version        BIGINT             NOT NULL,
    entry_key      TEXT   COLLATE "C" NOT NULL UNIQUE,
    kind           TEXT   COLLATE "C" NOT NULL,
    source         TEXT   COLLATE "C" NOT NULL,
    connection     TEXT   COLLATE "C" NOT NULL,
    project_id     TEXT   COLLATE "C" NOT NULL,
    clusters       TEXT   COLLATE "C" NOT NULL,
    workflow_id    TEXT   COLLATE "C" NOT NULL,
    run_id         TEXT   COLLATE "C" NOT NULL,
    outcome        TEXT   COLLATE "C" NOT NULL,
    ticket         TEXT   COLLATE "C" NOT NULL,
    requested_by   TEXT   COLLATE "C" NOT NULL,
    approved_by    TEXT   COLLATE "C" NOT NULL,
    acted_by       TEXT   COLLATE "C" NOT NULL,
    started_at     TEXT   COLLATE "C" NOT NULL,
    finished_at    TEXT   COLLATE "C" NOT NULL,
    recorded_at    TEXT   COLLATE "C" NOT NULL,
    worker_version TEXT   COLLATE "C" NOT NULL,
    body           TEXT   COLLATE "C" NOT NULL,
    previous_hash  TEXT   COLLATE "C" NOT NULL,
    signing_key_id TEXT   COLLATE "C" NOT NULL,
    signature      TEXT   COLLATE "C" NOT NULL,
    hash           TEXT   COLLATE "C" NOT NULL,
    PRIMARY KEY (chain, sequence)
);

CREATE INDEX ledger_entries_finished_at ON ledger_entries (finished_at, chain, sequence);
CREATE INDEX ledger_entries_ticket ON ledger_entries (ticket) WHERE ticket <> '';
CREATE INDEX ledger_entries_workflow ON ledger_entries (workflow_id, run_id);

CREATE FUNCTION ledger_entries_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'ledger_entries is append-only: % refused', TG_OP;
END
$$;

CREATE TRIGGER ledger_entries_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_entries
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_entries_refuse_change();
-- ALWAYS: also under session_replication_role = replica.
ALTER TABLE ledger_entries ENABLE ALWAYS TRIGGER ledger_entries_append_only;

-- What TG_TABLE_SCHEMA names, not the search_path, is the ledger.
CREATE FUNCTION ledger_entries_require_next() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    last_sequence BIGINT;
    last_hash     TEXT;
BEGIN
    EXECUTE format('SELECT sequence, hash FROM %I.%I WHERE chain = $1 ORDER BY sequence DESC LIMIT 1',
                   TG_TABLE_SCHEMA, TG_TABLE_NAME)
       INTO last_sequence, last_hash USING NEW.chain;
    IF NEW.sequence <> COALESCE(last_sequence, 0) + 1 OR NEW.previous_hash <> COALESCE(last_hash, '') THEN
        RAISE EXCEPTION 'ledger_entries is append-only: an entry must follow the last one of its chain';
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER ledger_entries_next_only BEFORE INSERT ON ledger_entries
    FOR EACH ROW EXECUTE FUNCTION ledger_entries_require_next();
ALTER TABLE ledger_entries ENABLE ALWAYS TRIGGER ledger_entries_next_only;
