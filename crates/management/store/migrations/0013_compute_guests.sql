-- Images that nodes fetch ahead, and actions on servers that take several steps.

-- Defaults of quotas are rows of the table of quotas: this one was never used.
DROP TABLE quota_defaults;

-- A node shall fetch an image; the row goes when the node has it, or when it has not for too long.
CREATE TABLE node_prefetches (
    node_id UUID NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    image_id UUID NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (node_id, image_id)
);
CREATE INDEX node_prefetches_image ON node_prefetches (image_id);

-- The steps of an action that are over, as JSON; the one under way, or the last one, is in the columns of the event.
ALTER TABLE server_actions ADD COLUMN steps_done TEXT;
