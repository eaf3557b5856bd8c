-- Clusters: nodes whose guests can move between them, with what may be claimed of each and how they are filled.

CREATE TABLE clusters (
    id UUID NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    zone TEXT NOT NULL,
    description TEXT NOT NULL,
    -- What may be claimed of what a node has, in percent.
    vcpus_percent BIGINT NOT NULL,
    memory_percent BIGINT NOT NULL,
    disk_percent BIGINT NOT NULL,
    -- spread or pack.
    filling TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

-- A node's cluster. Nodes of before are put into the default one as the database is opened.
ALTER TABLE nodes ADD COLUMN cluster_id UUID;
CREATE INDEX nodes_cluster ON nodes (cluster_id, name);

-- The cluster's figures and what the node has, beside the capacity that follows from them: one statement on one row sets it.
ALTER TABLE nodes ADD COLUMN vcpus_percent BIGINT NOT NULL DEFAULT 1600;
ALTER TABLE nodes ADD COLUMN memory_percent BIGINT NOT NULL DEFAULT 100;
ALTER TABLE nodes ADD COLUMN disk_percent BIGINT NOT NULL DEFAULT 1000;
ALTER TABLE nodes ADD COLUMN filling TEXT NOT NULL DEFAULT 'spread';
-- 0 until its first report under this release.
ALTER TABLE nodes ADD COLUMN vcpus_total BIGINT NOT NULL DEFAULT 0;
ALTER TABLE nodes ADD COLUMN memory_mib_total BIGINT NOT NULL DEFAULT 0;
ALTER TABLE nodes ADD COLUMN disk_gib_total BIGINT NOT NULL DEFAULT 0;
