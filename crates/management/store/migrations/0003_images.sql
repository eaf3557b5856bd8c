-- Disk images. A row without bytes is queued; its bytes are a file named by its id in the images folder.

CREATE TABLE images (
    id UUID NOT NULL PRIMARY KEY,
    -- Who owns and pays for it.
    project_id UUID NOT NULL,
    name TEXT,
    status TEXT NOT NULL,
    visibility TEXT NOT NULL,
    protected BOOLEAN NOT NULL,
    hidden BOOLEAN NOT NULL,
    disk_format TEXT,
    container_format TEXT,
    min_disk_gib BIGINT NOT NULL,
    min_ram_mib BIGINT NOT NULL,
    -- Known once the bytes are here; the hashes are in hexadecimal.
    size_bytes BIGINT,
    virtual_size_bytes BIGINT,
    md5 TEXT,
    sha256 TEXT,
    -- The upload that is under way: only the one that began may end.
    upload_id UUID,
    -- A snapshot that is not complete yet: the node whose upload is awaited. Nobody else may fill it.
    snapshot_node_id UUID,
    generation BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX images_created ON images (created_at, id);
CREATE INDEX images_project ON images (project_id, created_at);
CREATE INDEX images_name ON images (name);

CREATE TABLE image_tags (
    image_id UUID NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    tag TEXT NOT NULL,
    PRIMARY KEY (image_id, tag)
);
CREATE INDEX image_tags_tag ON image_tags (tag);

CREATE TABLE image_properties (
    image_id UUID NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (image_id, name)
);

CREATE TABLE image_members (
    image_id UUID NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    -- The project that the image is shared with.
    project_id UUID NOT NULL,
    status TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (image_id, project_id)
);
CREATE INDEX image_members_project ON image_members (project_id, status);
