-- What every other table leans on: nodes, the audit log and usage events.
-- One dialect for SQLite and PostgreSQL: TEXT, BIGINT, BOOLEAN, UUID. Instants are microseconds since 1970.

CREATE TABLE settings (
    name TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);

CREATE TABLE nodes (
    id UUID NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    availability_zone TEXT NOT NULL,
    enabled BOOLEAN NOT NULL,
    disabled_reason TEXT,
    -- Rises whenever something that the node must bring about changes.
    spec_generation BIGINT NOT NULL,
    -- What the node last said of itself (NodeFacts as JSON) and when it was last heard of.
    facts TEXT NOT NULL,
    seen_at BIGINT NOT NULL,
    -- Capacity after overcommit, and what servers have claimed of it.
    vcpus_cap BIGINT NOT NULL,
    vcpus_used BIGINT NOT NULL,
    memory_mib_cap BIGINT NOT NULL,
    memory_mib_used BIGINT NOT NULL,
    disk_gib_cap BIGINT NOT NULL,
    disk_gib_used BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

CREATE TABLE join_tokens (
    -- SHA-256 of the token, in hexadecimal: the token itself is never stored.
    token_hash TEXT NOT NULL PRIMARY KEY,
    uses_left BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);

CREATE TABLE audit_events (
    id UUID NOT NULL PRIMARY KEY,
    at BIGINT NOT NULL,
    request_id UUID NOT NULL,
    actor TEXT NOT NULL,
    user_id UUID,
    project_id UUID,
    action TEXT NOT NULL,
    target_kind TEXT NOT NULL,
    target_id TEXT NOT NULL,
    detail TEXT NOT NULL
);
CREATE INDEX audit_events_target ON audit_events (target_kind, target_id, at);
CREATE INDEX audit_events_project ON audit_events (project_id, at);

CREATE TABLE usage_events (
    id UUID NOT NULL PRIMARY KEY,
    at BIGINT NOT NULL,
    project_id UUID NOT NULL,
    resource_kind TEXT NOT NULL,
    resource_id UUID NOT NULL,
    -- What is used from this instant on, as JSON: quantities by unit; an empty object ends the use.
    uses TEXT NOT NULL
);
CREATE INDEX usage_events_project ON usage_events (project_id, at);
CREATE INDEX usage_events_resource ON usage_events (resource_id, at);

CREATE TABLE quotas (
    project_id UUID NOT NULL,
    resource TEXT NOT NULL,
    -- NULL: the cloud's default; -1: no limit.
    cap BIGINT,
    used BIGINT NOT NULL,
    PRIMARY KEY (project_id, resource)
);
