-- Servers, flavors, key pairs, server groups and what was done to servers.

CREATE TABLE flavors (
    -- Chosen by an administrator: any short text.
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    vcpus BIGINT NOT NULL,
    memory_mib BIGINT NOT NULL,
    disk_gib BIGINT NOT NULL,
    ephemeral_gib BIGINT NOT NULL,
    swap_mib BIGINT NOT NULL,
    -- Kept for clients that send it; 100 is a factor of 1.0.
    rxtx_percent BIGINT NOT NULL,
    is_public BOOLEAN NOT NULL,
    description TEXT,
    extra_specs TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

CREATE TABLE flavor_access (
    flavor_id TEXT NOT NULL REFERENCES flavors (id) ON DELETE CASCADE,
    project_id UUID NOT NULL,
    PRIMARY KEY (flavor_id, project_id)
);

INSERT INTO flavors (id, name, vcpus, memory_mib, disk_gib, ephemeral_gib, swap_mib, rxtx_percent, is_public, extra_specs,
    created_at, updated_at)
VALUES ('1', 'arcus.tiny', 1, 192, 1, 0, 0, 100, TRUE, '{}', 0, 0),
       ('2', 'arcus.small', 1, 512, 5, 0, 0, 100, TRUE, '{}', 0, 0),
       ('3', 'arcus.medium', 2, 1024, 10, 0, 0, 100, TRUE, '{}', 0, 0),
       ('4', 'arcus.large', 2, 2048, 20, 0, 0, 100, TRUE, '{}', 0, 0);

CREATE TABLE keypairs (
    user_id UUID NOT NULL,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    public_key TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (user_id, name)
);

CREATE TABLE server_groups (
    id UUID NOT NULL PRIMARY KEY,
    project_id UUID NOT NULL,
    user_id UUID NOT NULL,
    name TEXT NOT NULL,
    policy TEXT NOT NULL,
    -- For anti-affinity: how many members may share a node.
    servers_per_node_max BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX server_groups_project ON server_groups (project_id, id);

CREATE TABLE servers (
    id UUID NOT NULL PRIMARY KEY,
    project_id UUID NOT NULL,
    user_id UUID NOT NULL,
    name TEXT NOT NULL,
    -- Where it rests, what is being done to it, and until when that must be over.
    state TEXT NOT NULL,
    task TEXT,
    task_deadline BIGINT,
    -- What its node last saw (OpenStack's number), and how far a preparation is, in percent.
    power_state BIGINT NOT NULL,
    progress BIGINT NOT NULL,
    -- The wish that its node acts on.
    power TEXT NOT NULL,
    version BIGINT NOT NULL,
    epoch BIGINT NOT NULL,
    restarts BIGINT NOT NULL,
    restart_hard BOOLEAN NOT NULL,
    incarnation BIGINT NOT NULL,
    -- The node that it lives on, and the node's spec generation that carries the last wish.
    node_id UUID REFERENCES nodes (id),
    node_generation BIGINT NOT NULL,
    availability_zone TEXT NOT NULL,
    -- What is claimed of the node and of the project's quota.
    vcpus BIGINT NOT NULL,
    memory_mib BIGINT NOT NULL,
    disk_gib BIGINT NOT NULL,
    -- The flavor and the image as they were when it was made, as JSON.
    flavor_id TEXT NOT NULL,
    flavor TEXT NOT NULL,
    image_id UUID NOT NULL,
    image TEXT NOT NULL,
    metadata TEXT NOT NULL,
    locked BOOLEAN NOT NULL,
    server_group_id UUID REFERENCES server_groups (id),
    -- The request whose action is under way.
    request_id UUID,
    fault TEXT,
    details TEXT NOT NULL,
    generation BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    launched_at BIGINT,
    -- Set once it is gone: the record stays for administrators for a while.
    deleted_at BIGINT
);
CREATE INDEX servers_project ON servers (project_id, created_at, id);
CREATE INDEX servers_created ON servers (created_at, id);
CREATE INDEX servers_node ON servers (node_id) WHERE deleted_at IS NULL;
CREATE INDEX servers_task ON servers (task_deadline) WHERE task IS NOT NULL;
CREATE INDEX servers_gone ON servers (deleted_at) WHERE deleted_at IS NOT NULL;
CREATE INDEX servers_group ON servers (server_group_id) WHERE server_group_id IS NOT NULL;

-- What only the guest and its owner may see: user data, keys, password. Apart, so that lists stay small.
CREATE TABLE server_secrets (
    server_id UUID NOT NULL PRIMARY KEY REFERENCES servers (id) ON DELETE CASCADE,
    document TEXT NOT NULL
);

CREATE TABLE server_tags (
    server_id UUID NOT NULL REFERENCES servers (id) ON DELETE CASCADE,
    tag TEXT NOT NULL,
    PRIMARY KEY (server_id, tag)
);
CREATE INDEX server_tags_tag ON server_tags (tag);

CREATE TABLE server_snapshots (
    image_id UUID NOT NULL PRIMARY KEY,
    server_id UUID NOT NULL REFERENCES servers (id) ON DELETE CASCADE,
    node_id UUID NOT NULL,
    request_id UUID NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX server_snapshots_node ON server_snapshots (node_id);
CREATE INDEX server_snapshots_server ON server_snapshots (server_id);

CREATE TABLE server_actions (
    server_id UUID NOT NULL REFERENCES servers (id) ON DELETE CASCADE,
    request_id UUID NOT NULL,
    action TEXT NOT NULL,
    user_id UUID,
    project_id UUID,
    -- Why it failed, in words for the owner.
    message TEXT,
    -- The one event of each action: what the node was asked, and how it ended.
    event TEXT,
    event_node TEXT,
    event_started_at BIGINT,
    event_finished_at BIGINT,
    event_result TEXT,
    event_details TEXT,
    started_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (server_id, request_id)
);
CREATE INDEX server_actions_started ON server_actions (server_id, started_at);
