-- Servers that go to another node while they run. A row lives as long as its move: it holds what the destination has
-- claimed and the key that both nodes share.

CREATE TABLE live_migrations (
    migration_id UUID NOT NULL PRIMARY KEY REFERENCES server_migrations (id) ON DELETE CASCADE,
    -- A server moves once at a time.
    server_id UUID NOT NULL UNIQUE REFERENCES servers (id) ON DELETE CASCADE,
    source_id UUID NOT NULL REFERENCES nodes (id),
    dest_id UUID NOT NULL REFERENCES nodes (id),
    key TEXT NOT NULL,
    -- What is claimed of the destination.
    vcpus BIGINT NOT NULL,
    memory_mib BIGINT NOT NULL,
    disk_gib BIGINT NOT NULL,
    -- How far it is, as JSON.
    progress TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX live_migrations_source ON live_migrations (source_id);
CREATE INDEX live_migrations_dest ON live_migrations (dest_id);

-- What a live migration took, as JSON; NULL if there is nothing to say.
ALTER TABLE server_migrations ADD COLUMN outcome TEXT;
