-- Imports of images, as the tasks of the image API tell of them. A row is written with the import that it tells of.

CREATE TABLE image_imports (
    id UUID NOT NULL PRIMARY KEY,
    image_id UUID NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    user_id UUID,
    request_id UUID NOT NULL,
    -- The request's body, in JSON.
    request TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX image_imports_image ON image_imports (image_id, created_at);
