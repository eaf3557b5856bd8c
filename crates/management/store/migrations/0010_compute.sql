-- Aggregates of nodes, the history of servers' migrations, per-user quotas, and what shelving and backups need.

-- For a backup: how many of its kind are kept. NULL: it is a plain snapshot.
ALTER TABLE server_snapshots ADD COLUMN rotation BIGINT;

-- An administrator's word that a node is down, whatever it says itself.
ALTER TABLE nodes ADD COLUMN forced_down BOOLEAN NOT NULL DEFAULT FALSE;

CREATE TABLE aggregates (
    id UUID NOT NULL PRIMARY KEY,
    -- What the compute API calls its id.
    number BIGINT NOT NULL UNIQUE,
    name TEXT NOT NULL UNIQUE,
    -- The zone that its nodes are in, if it makes one.
    availability_zone TEXT,
    metadata TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

CREATE TABLE aggregate_nodes (
    aggregate_id UUID NOT NULL REFERENCES aggregates (id) ON DELETE CASCADE,
    node_id UUID NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    PRIMARY KEY (aggregate_id, node_id)
);
CREATE INDEX aggregate_nodes_node ON aggregate_nodes (node_id);

CREATE TABLE server_migrations (
    id UUID NOT NULL PRIMARY KEY,
    -- What the compute API calls its id.
    number BIGINT NOT NULL UNIQUE,
    server_id UUID NOT NULL REFERENCES servers (id) ON DELETE CASCADE,
    project_id UUID NOT NULL,
    user_id UUID,
    -- resize, migration, live-migration or evacuation.
    kind TEXT NOT NULL,
    status TEXT NOT NULL,
    source_node TEXT NOT NULL,
    dest_node TEXT NOT NULL,
    old_flavor TEXT NOT NULL,
    new_flavor TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX server_migrations_server ON server_migrations (server_id, number);
CREATE INDEX server_migrations_updated ON server_migrations (updated_at);

-- What one user may have of a project's quota; no row: as much as the project.
CREATE TABLE user_quotas (
    project_id UUID NOT NULL,
    user_id UUID NOT NULL,
    resource TEXT NOT NULL,
    cap BIGINT NOT NULL,
    PRIMARY KEY (project_id, user_id, resource)
);

-- What a project may have unless its quota says otherwise, where an operator has changed that.
CREATE TABLE quota_defaults (
    resource TEXT NOT NULL PRIMARY KEY,
    cap BIGINT NOT NULL
);
