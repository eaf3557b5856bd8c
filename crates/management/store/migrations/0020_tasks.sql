-- What was asked and is not instant: who asked, how far it is, how it ended. The truth of a resource stays in its own row.

CREATE TABLE tasks (
    id UUID NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL,
    -- The task that this one is a part of.
    parent_id UUID,
    resource_kind TEXT NOT NULL,
    resource_id UUID NOT NULL,
    resource_name TEXT NOT NULL,
    project_id UUID,
    user_id UUID,
    request_id UUID NOT NULL,
    -- waiting, running, done, failed or cancelled.
    state TEXT NOT NULL,
    step TEXT,
    -- The steps that are over, as JSON.
    steps TEXT NOT NULL,
    progress BIGINT NOT NULL,
    error TEXT,
    priority BIGINT NOT NULL,
    deadline BIGINT,
    -- Somebody asked to give it up.
    cancel BOOLEAN NOT NULL,
    -- What only this kind has, as JSON.
    detail TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    started_at BIGINT,
    finished_at BIGINT,
    updated_at BIGINT NOT NULL,
    -- A request asks one thing of a resource.
    UNIQUE (resource_id, request_id)
);
CREATE INDEX tasks_project ON tasks (project_id, id);
CREATE INDEX tasks_state ON tasks (state, id);
CREATE INDEX tasks_kind ON tasks (kind, id);
CREATE INDEX tasks_parent ON tasks (parent_id, id);
CREATE INDEX tasks_updated ON tasks (updated_at, id);
CREATE INDEX tasks_finished ON tasks (finished_at);

-- The servers that a drain takes from its node, or a restoration brings back to it, with the room that is kept for them.
CREATE TABLE relocations (
    task_id UUID NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    server_id UUID NOT NULL,
    -- The order in which they go.
    position BIGINT NOT NULL,
    name TEXT NOT NULL,
    source_id UUID NOT NULL,
    -- Where room is kept; NULL if it is not.
    target_id UUID,
    vcpus BIGINT NOT NULL,
    memory_mib BIGINT NOT NULL,
    disk_gib BIGINT NOT NULL,
    -- Whether the room on the target is claimed by this row.
    reserved BOOLEAN NOT NULL,
    state TEXT NOT NULL,
    reason TEXT,
    attempts BIGINT NOT NULL,
    not_before BIGINT NOT NULL,
    -- The move that is under way, or was the last.
    migration_id UUID,
    predicted_ms BIGINT,
    predicted_blackout_ms BIGINT,
    measured_ms BIGINT,
    measured_blackout_ms BIGINT,
    PRIMARY KEY (task_id, server_id)
);
