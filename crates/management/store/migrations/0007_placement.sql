-- Resource providers: the nodes, and what others keep books of through the placement API.

CREATE TABLE providers (
    -- A node's id, or one of its own.
    id UUID NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    parent_id UUID,
    root_id UUID NOT NULL,
    -- Rises whenever something is said about it; writers must know it.
    generation BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX providers_root ON providers (root_id);
CREATE INDEX providers_parent ON providers (parent_id);

INSERT INTO providers (id, name, parent_id, root_id, generation, created_at, updated_at)
SELECT id, name, NULL, id, 0, created_at, created_at FROM nodes;

-- What providers have, apart from processors, memory and disk of nodes, which stand in the table of nodes.
CREATE TABLE provider_inventories (
    provider_id UUID NOT NULL REFERENCES providers (id) ON DELETE CASCADE,
    class TEXT NOT NULL,
    total BIGINT NOT NULL,
    reserved BIGINT NOT NULL,
    min_unit BIGINT NOT NULL,
    max_unit BIGINT NOT NULL,
    step_size BIGINT NOT NULL,
    -- The allocation ratio in millionths.
    ratio_millionths BIGINT NOT NULL,
    -- (total - reserved) times the ratio, and what is claimed of it.
    cap BIGINT NOT NULL,
    used BIGINT NOT NULL,
    PRIMARY KEY (provider_id, class)
);
CREATE INDEX provider_inventories_class ON provider_inventories (class);

CREATE TABLE provider_traits (
    provider_id UUID NOT NULL REFERENCES providers (id) ON DELETE CASCADE,
    trait TEXT NOT NULL,
    PRIMARY KEY (provider_id, trait)
);
CREATE INDEX provider_traits_trait ON provider_traits (trait);

CREATE TABLE provider_aggregates (
    provider_id UUID NOT NULL REFERENCES providers (id) ON DELETE CASCADE,
    aggregate_id UUID NOT NULL,
    PRIMARY KEY (provider_id, aggregate_id)
);

-- Names that begin with CUSTOM_: kind is `trait` or `class`.
CREATE TABLE provider_words (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (kind, name)
);

-- Who claims something of a provider, apart from servers, which stand in their own table.
CREATE TABLE consumers (
    id UUID NOT NULL PRIMARY KEY,
    project TEXT NOT NULL,
    owner TEXT NOT NULL,
    kind TEXT NOT NULL,
    generation BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX consumers_project ON consumers (project, owner);

CREATE TABLE allocations (
    consumer_id UUID NOT NULL REFERENCES consumers (id) ON DELETE CASCADE,
    provider_id UUID NOT NULL,
    class TEXT NOT NULL,
    used BIGINT NOT NULL,
    PRIMARY KEY (consumer_id, provider_id, class)
);
CREATE INDEX allocations_provider ON allocations (provider_id, consumer_id);
