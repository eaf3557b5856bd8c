-- Volumes: block devices that live on a node's pool, their snapshots, attachments, types and transfers.

CREATE TABLE volume_qos_specs (
    id UUID NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    -- Who enforces it: front-end, back-end or both.
    consumer TEXT NOT NULL,
    -- Key and value pairs, as JSON.
    specs TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT
);

CREATE TABLE volume_types (
    id UUID NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    description TEXT,
    is_public BOOLEAN NOT NULL,
    -- Key and value pairs, as JSON.
    extra_specs TEXT NOT NULL,
    qos_specs_id UUID REFERENCES volume_qos_specs (id),
    created_at BIGINT NOT NULL,
    updated_at BIGINT
);
CREATE INDEX volume_types_created ON volume_types (created_at, id);
CREATE INDEX volume_types_qos ON volume_types (qos_specs_id) WHERE qos_specs_id IS NOT NULL;

-- Which projects may use a type that is not public.
CREATE TABLE volume_type_access (
    volume_type_id UUID NOT NULL REFERENCES volume_types (id) ON DELETE CASCADE,
    project_id UUID NOT NULL,
    PRIMARY KEY (volume_type_id, project_id)
);

-- The type that a project's volumes get unless they name one, where it is not the cloud's.
CREATE TABLE volume_default_types (
    project_id UUID NOT NULL PRIMARY KEY,
    volume_type_id UUID NOT NULL REFERENCES volume_types (id)
);

CREATE TABLE volumes (
    id UUID NOT NULL PRIMARY KEY,
    project_id UUID NOT NULL,
    user_id UUID NOT NULL,
    name TEXT,
    description TEXT,
    status TEXT NOT NULL,
    -- Where it goes when what is being done to it is over, and until when that must be.
    status_before TEXT,
    deadline BIGINT,
    -- What is claimed of the node and of the project's quota; while it is extended, the larger size.
    size_gib BIGINT NOT NULL,
    volume_type_id UUID NOT NULL REFERENCES volume_types (id),
    availability_zone TEXT NOT NULL,
    -- The node whose pool it is in; none if no node had room.
    node_id UUID REFERENCES nodes (id),
    -- The node's spec generation that carries the last wish, and how often something was wished.
    node_generation BIGINT NOT NULL,
    version BIGINT NOT NULL,
    bootable BOOLEAN NOT NULL,
    read_only BOOLEAN NOT NULL,
    multiattach BOOLEAN NOT NULL,
    -- Whether the node has made it.
    made BOOLEAN NOT NULL,
    -- What its bytes begin as, as JSON, and what that was made of, for those who ask.
    source TEXT NOT NULL,
    source_volume_id UUID,
    source_snapshot_id UUID,
    metadata TEXT NOT NULL,
    -- Properties of the image that it began as, as JSON; NULL if it began as none.
    image_metadata TEXT,
    fault TEXT,
    details TEXT NOT NULL,
    generation BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT,
    launched_at BIGINT
);
CREATE INDEX volumes_project ON volumes (project_id, created_at, id);
CREATE INDEX volumes_created ON volumes (created_at, id);
CREATE INDEX volumes_node ON volumes (node_id);
CREATE INDEX volumes_type ON volumes (volume_type_id);
CREATE INDEX volumes_deadline ON volumes (deadline) WHERE deadline IS NOT NULL;
CREATE INDEX volumes_source_volume ON volumes (source_volume_id) WHERE source_volume_id IS NOT NULL;
CREATE INDEX volumes_source_snapshot ON volumes (source_snapshot_id) WHERE source_snapshot_id IS NOT NULL;

CREATE TABLE volume_snapshots (
    id UUID NOT NULL PRIMARY KEY,
    volume_id UUID NOT NULL REFERENCES volumes (id),
    project_id UUID NOT NULL,
    user_id UUID NOT NULL,
    name TEXT,
    description TEXT,
    status TEXT NOT NULL,
    deadline BIGINT,
    -- The volume's size at the time, claimed of the project's quota.
    size_gib BIGINT NOT NULL,
    node_generation BIGINT NOT NULL,
    metadata TEXT NOT NULL,
    fault TEXT,
    generation BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT
);
CREATE INDEX volume_snapshots_volume ON volume_snapshots (volume_id);
CREATE INDEX volume_snapshots_project ON volume_snapshots (project_id, created_at, id);
CREATE INDEX volume_snapshots_created ON volume_snapshots (created_at, id);
CREATE INDEX volume_snapshots_deadline ON volume_snapshots (deadline) WHERE deadline IS NOT NULL;

CREATE TABLE volume_attachments (
    id UUID NOT NULL PRIMARY KEY,
    volume_id UUID NOT NULL REFERENCES volumes (id) ON DELETE CASCADE,
    project_id UUID NOT NULL,
    user_id UUID NOT NULL,
    -- The server, if it is one; not a key of the servers table, because the volume API takes any id.
    server_id UUID,
    -- Whether the server has it as a disk: made by the compute API, not only noted by the volume API.
    by_server BOOLEAN NOT NULL,
    status TEXT NOT NULL,
    deadline BIGINT,
    -- rw or ro; NULL while only reserved.
    mode TEXT,
    device TEXT,
    host_name TEXT,
    -- What the client said of its side, and what it was answered, as JSON.
    connector TEXT NOT NULL,
    -- The compute API's name of the same thing, its place in the boot order, and what it is told apart by in the guest.
    bdm_id UUID NOT NULL,
    boot_index BIGINT,
    tag TEXT,
    delete_on_termination BOOLEAN NOT NULL,
    -- The node's spec generation that carries the last wish.
    node_generation BIGINT NOT NULL,
    generation BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT,
    attached_at BIGINT
);
CREATE INDEX volume_attachments_volume ON volume_attachments (volume_id);
CREATE INDEX volume_attachments_server ON volume_attachments (server_id) WHERE server_id IS NOT NULL;
CREATE INDEX volume_attachments_project ON volume_attachments (project_id, created_at, id);
CREATE INDEX volume_attachments_created ON volume_attachments (created_at, id);
CREATE INDEX volume_attachments_deadline ON volume_attachments (deadline) WHERE deadline IS NOT NULL;

-- Images that are being made of volumes.
CREATE TABLE volume_uploads (
    image_id UUID NOT NULL PRIMARY KEY,
    volume_id UUID NOT NULL REFERENCES volumes (id) ON DELETE CASCADE,
    node_id UUID NOT NULL,
    request_id UUID NOT NULL,
    -- The form of the image, as the image API writes it.
    disk_format TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX volume_uploads_node ON volume_uploads (node_id);
CREATE INDEX volume_uploads_volume ON volume_uploads (volume_id);

CREATE TABLE volume_transfers (
    id UUID NOT NULL PRIMARY KEY,
    volume_id UUID NOT NULL UNIQUE REFERENCES volumes (id) ON DELETE CASCADE,
    name TEXT,
    -- The key is shown once; only a salted SHA-256 of it is kept.
    salt TEXT NOT NULL,
    key_hash TEXT NOT NULL,
    no_snapshots BOOLEAN NOT NULL,
    source_project_id UUID NOT NULL,
    destination_project_id UUID,
    accepted BOOLEAN NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX volume_transfers_project ON volume_transfers (source_project_id, created_at, id);
CREATE INDEX volume_transfers_created ON volume_transfers (created_at, id);
