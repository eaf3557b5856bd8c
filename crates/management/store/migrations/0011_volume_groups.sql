-- Groups of volumes, their types and their snapshots.

CREATE TABLE volume_group_types (
    id UUID NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    description TEXT,
    is_public BOOLEAN NOT NULL,
    -- Key and value pairs, as JSON.
    specs TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT
);
CREATE INDEX volume_group_types_created ON volume_group_types (created_at, id);

CREATE TABLE volume_groups (
    id UUID NOT NULL PRIMARY KEY,
    project_id UUID NOT NULL,
    user_id UUID NOT NULL,
    name TEXT,
    description TEXT,
    status TEXT NOT NULL,
    group_type_id UUID NOT NULL REFERENCES volume_group_types (id),
    -- The types that its volumes may be of: a list of ids, as JSON.
    volume_types TEXT NOT NULL,
    availability_zone TEXT NOT NULL,
    -- What it was made of, for those who ask.
    group_snapshot_id UUID,
    source_group_id UUID,
    created_at BIGINT NOT NULL,
    updated_at BIGINT
);
CREATE INDEX volume_groups_project ON volume_groups (project_id, created_at, id);
CREATE INDEX volume_groups_created ON volume_groups (created_at, id);
CREATE INDEX volume_groups_type ON volume_groups (group_type_id);

CREATE TABLE volume_group_snapshots (
    id UUID NOT NULL PRIMARY KEY,
    group_id UUID NOT NULL REFERENCES volume_groups (id),
    group_type_id UUID NOT NULL,
    project_id UUID NOT NULL,
    user_id UUID NOT NULL,
    name TEXT,
    description TEXT,
    status TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT
);
CREATE INDEX volume_group_snapshots_group ON volume_group_snapshots (group_id);
CREATE INDEX volume_group_snapshots_project ON volume_group_snapshots (project_id, created_at, id);
CREATE INDEX volume_group_snapshots_created ON volume_group_snapshots (created_at, id);

ALTER TABLE volumes ADD COLUMN group_id UUID REFERENCES volume_groups (id);
CREATE INDEX volumes_group ON volumes (group_id) WHERE group_id IS NOT NULL;
ALTER TABLE volume_snapshots ADD COLUMN group_snapshot_id UUID REFERENCES volume_group_snapshots (id);
CREATE INDEX volume_snapshots_group_snapshot ON volume_snapshots (group_snapshot_id) WHERE group_snapshot_id IS NOT NULL;
