-- Domains, projects, users, groups, roles, who holds which role where, and which tokens are void.
--
-- `token_epoch` is written into every token that names the row. It rises in the transaction after which such tokens must
-- not be honoured any more, and `revocations` tells every replica so. Unlike a comparison of clocks this leaves no gap
-- for a log-in that has read the old state and is answered after the change.

CREATE TABLE domains (
    id UUID NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    description TEXT NOT NULL,
    enabled BOOLEAN NOT NULL,
    token_epoch BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE projects (
    id UUID NOT NULL PRIMARY KEY,
    domain_id UUID NOT NULL REFERENCES domains (id) ON DELETE CASCADE,
    -- NULL: directly below the domain.
    parent_id UUID REFERENCES projects (id),
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    enabled BOOLEAN NOT NULL,
    token_epoch BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    UNIQUE (domain_id, name)
);
CREATE INDEX projects_parent ON projects (parent_id);

CREATE TABLE users (
    id UUID NOT NULL PRIMARY KEY,
    domain_id UUID NOT NULL REFERENCES domains (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    description TEXT,
    email TEXT,
    enabled BOOLEAN NOT NULL,
    -- May name a project that is gone: then it has no effect.
    default_project_id UUID,
    -- PHC string; NULL: the user cannot log in with a password.
    password_hash TEXT,
    -- Earlier PHC strings, newest first, as a JSON array.
    password_history TEXT NOT NULL,
    -- Wrong passwords in a row, and when the last of them was given.
    failures BIGINT NOT NULL,
    failed_at BIGINT NOT NULL,
    token_epoch BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    UNIQUE (domain_id, name)
);

CREATE TABLE user_groups (
    id UUID NOT NULL PRIMARY KEY,
    domain_id UUID NOT NULL REFERENCES domains (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    UNIQUE (domain_id, name)
);

CREATE TABLE user_group_members (
    group_id UUID NOT NULL REFERENCES user_groups (id) ON DELETE CASCADE,
    user_id UUID NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    PRIMARY KEY (group_id, user_id)
);
CREATE INDEX user_group_members_user ON user_group_members (user_id);

CREATE TABLE roles (
    id UUID NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    description TEXT,
    -- Neither renamed nor deleted: the roles that the policy table knows.
    builtin BOOLEAN NOT NULL,
    created_at BIGINT NOT NULL
);

-- Exactly one of user_id and group_id is set, and is actor_id; at most one of project_id and domain_id is set, and is
-- target_id. With neither of them the role is held on the whole system, and target_id is all ones.
CREATE TABLE role_assignments (
    actor_id UUID NOT NULL,
    target_id UUID NOT NULL,
    role_id UUID NOT NULL REFERENCES roles (id) ON DELETE CASCADE,
    user_id UUID REFERENCES users (id) ON DELETE CASCADE,
    group_id UUID REFERENCES user_groups (id) ON DELETE CASCADE,
    project_id UUID REFERENCES projects (id) ON DELETE CASCADE,
    domain_id UUID REFERENCES domains (id) ON DELETE CASCADE,
    PRIMARY KEY (actor_id, target_id, role_id),
    CHECK ((user_id IS NULL) <> (group_id IS NULL)),
    CHECK (project_id IS NULL OR domain_id IS NULL)
);
CREATE INDEX role_assignments_user ON role_assignments (user_id);
CREATE INDEX role_assignments_group ON role_assignments (group_id);
CREATE INDEX role_assignments_project ON role_assignments (project_id);
CREATE INDEX role_assignments_domain ON role_assignments (domain_id);
CREATE INDEX role_assignments_role ON role_assignments (role_id);

CREATE TABLE application_credentials (
    id UUID NOT NULL PRIMARY KEY,
    user_id UUID NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    project_id UUID NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    description TEXT,
    secret_hash TEXT NOT NULL,
    -- The roles that it carries, as a JSON array of ids; a role that the user has lost since has no effect.
    roles TEXT NOT NULL,
    unrestricted BOOLEAN NOT NULL,
    expires_at BIGINT,
    created_at BIGINT NOT NULL,
    UNIQUE (user_id, name)
);
CREATE INDEX application_credentials_project ON application_credentials (project_id);

CREATE TABLE revocations (
    -- `token` (by audit id), `user`, `project`, `domain` or `credential`.
    kind TEXT NOT NULL,
    subject_id UUID NOT NULL,
    -- Tokens that hold a lower epoch of the subject are void.
    epoch BIGINT NOT NULL,
    recorded_at BIGINT NOT NULL,
    -- From then on every such token has expired anyway.
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (kind, subject_id)
);
CREATE INDEX revocations_recorded ON revocations (recorded_at);
CREATE INDEX revocations_expires ON revocations (expires_at);
