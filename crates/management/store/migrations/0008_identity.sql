-- Identity in full: roles of one domain, implied and inherited roles, trusts, access rules, what the administrator adds to
-- the catalogue, limits, credentials, tags and options.
--
-- Two tables are made anew: `roles`, whose names are now unique within their domain, and `role_assignments`, whose key
-- now holds whether the role is inherited. Assignments are set aside first, since they refer to roles.

CREATE TABLE role_assignments_before (
    actor_id UUID NOT NULL,
    target_id UUID NOT NULL,
    role_id UUID NOT NULL,
    user_id UUID,
    group_id UUID,
    project_id UUID,
    domain_id UUID
);
INSERT INTO role_assignments_before
    SELECT actor_id, target_id, role_id, user_id, group_id, project_id, domain_id FROM role_assignments;
DROP TABLE role_assignments;

CREATE TABLE roles_now (
    id UUID NOT NULL PRIMARY KEY,
    -- NULL: a role of the whole cloud. A role of one domain grants nothing but what it implies.
    domain_id UUID REFERENCES domains (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    description TEXT,
    -- Neither renamed nor deleted: the roles that the policy table knows.
    builtin BOOLEAN NOT NULL,
    -- JSON object; `immutable` keeps it from being changed and deleted.
    options TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
INSERT INTO roles_now SELECT id, NULL, name, description, builtin, '{}', created_at FROM roles;
DROP TABLE roles;
ALTER TABLE roles_now RENAME TO roles;
CREATE UNIQUE INDEX roles_name ON roles (name) WHERE domain_id IS NULL;
CREATE UNIQUE INDEX roles_domain_name ON roles (domain_id, name) WHERE domain_id IS NOT NULL;

-- Who holds the first role holds the second one. The built-in chain is here too, and is not taken away.
CREATE TABLE role_implications (
    prior_id UUID NOT NULL REFERENCES roles (id) ON DELETE CASCADE,
    implied_id UUID NOT NULL REFERENCES roles (id) ON DELETE CASCADE,
    PRIMARY KEY (prior_id, implied_id)
);
CREATE INDEX role_implications_implied ON role_implications (implied_id);
INSERT INTO role_implications SELECT a.id, b.id FROM roles a, roles b WHERE a.builtin AND b.builtin
    AND (a.name = 'admin' AND b.name = 'manager' OR a.name = 'manager' AND b.name = 'member'
         OR a.name = 'member' AND b.name = 'reader');

CREATE TABLE role_assignments (
    actor_id UUID NOT NULL,
    target_id UUID NOT NULL,
    role_id UUID NOT NULL REFERENCES roles (id) ON DELETE CASCADE,
    -- The role is held not there but on every project below.
    inherited BOOLEAN NOT NULL,
    user_id UUID REFERENCES users (id) ON DELETE CASCADE,
    group_id UUID REFERENCES user_groups (id) ON DELETE CASCADE,
    project_id UUID REFERENCES projects (id) ON DELETE CASCADE,
    domain_id UUID REFERENCES domains (id) ON DELETE CASCADE,
    PRIMARY KEY (actor_id, target_id, role_id, inherited),
    CHECK ((user_id IS NULL) <> (group_id IS NULL)),
    CHECK (project_id IS NULL OR domain_id IS NULL)
);
CREATE INDEX role_assignments_user ON role_assignments (user_id);
CREATE INDEX role_assignments_group ON role_assignments (group_id);
CREATE INDEX role_assignments_project ON role_assignments (project_id);
CREATE INDEX role_assignments_domain ON role_assignments (domain_id);
CREATE INDEX role_assignments_role ON role_assignments (role_id);
INSERT INTO role_assignments
    SELECT actor_id, target_id, role_id, FALSE, user_id, group_id, project_id, domain_id FROM role_assignments_before;
DROP TABLE role_assignments_before;

-- Attributes of the client's own, and options, both JSON objects. Tags are a JSON array.
ALTER TABLE domains ADD COLUMN extra TEXT NOT NULL DEFAULT '{}';
ALTER TABLE domains ADD COLUMN options TEXT NOT NULL DEFAULT '{}';
ALTER TABLE projects ADD COLUMN extra TEXT NOT NULL DEFAULT '{}';
ALTER TABLE projects ADD COLUMN options TEXT NOT NULL DEFAULT '{}';
ALTER TABLE projects ADD COLUMN tags TEXT NOT NULL DEFAULT '[]';
ALTER TABLE user_groups ADD COLUMN extra TEXT NOT NULL DEFAULT '{}';
ALTER TABLE users ADD COLUMN extra TEXT NOT NULL DEFAULT '{}';
ALTER TABLE users ADD COLUMN options TEXT NOT NULL DEFAULT '{}';
-- When the present password was set; 0 if there is none or it is not known.
ALTER TABLE users ADD COLUMN password_set_at BIGINT NOT NULL DEFAULT 0;

-- Somebody lets somebody else act in a project with some of their roles.
CREATE TABLE trusts (
    id UUID NOT NULL PRIMARY KEY,
    trustor_user_id UUID NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    trustee_user_id UUID NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    project_id UUID REFERENCES projects (id) ON DELETE CASCADE,
    impersonation BOOLEAN NOT NULL,
    -- JSON array of ids; a role that the trustor has lost since has no effect and voids the trust.
    roles TEXT NOT NULL,
    expires_at BIGINT,
    -- NULL: as often as they like.
    remaining_uses BIGINT,
    -- How many more times it may be handed on; the trust that it came from.
    redelegation_count BIGINT NOT NULL,
    redelegated_trust_id UUID REFERENCES trusts (id) ON DELETE CASCADE,
    created_at BIGINT NOT NULL
);
CREATE INDEX trusts_trustor ON trusts (trustor_user_id, id);
CREATE INDEX trusts_trustee ON trusts (trustee_user_id, id);
CREATE INDEX trusts_project ON trusts (project_id);
CREATE INDEX trusts_redelegated ON trusts (redelegated_trust_id);

-- What application credentials with rules may call. A rule outlives the credential that it was made with.
CREATE TABLE access_rules (
    id UUID NOT NULL PRIMARY KEY,
    user_id UUID NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    service TEXT NOT NULL,
    method TEXT NOT NULL,
    path TEXT NOT NULL,
    UNIQUE (user_id, service, method, path)
);
CREATE TABLE application_credential_rules (
    credential_id UUID NOT NULL REFERENCES application_credentials (id) ON DELETE CASCADE,
    rule_id UUID NOT NULL REFERENCES access_rules (id),
    PRIMARY KEY (credential_id, rule_id)
);
CREATE INDEX application_credential_rules_rule ON application_credential_rules (rule_id);
-- Whether rules say what the credential may call; without rules it may then call nothing.
ALTER TABLE application_credentials ADD COLUMN ruled BOOLEAN NOT NULL DEFAULT FALSE;

-- What the administrator adds to the catalogue. Our own services and endpoints follow from the address and are not here.
CREATE TABLE regions (
    id TEXT NOT NULL PRIMARY KEY,
    parent_id TEXT,
    description TEXT NOT NULL,
    extra TEXT NOT NULL
);
CREATE INDEX regions_parent ON regions (parent_id);
CREATE TABLE catalog_services (
    id UUID NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL,
    name TEXT,
    description TEXT NOT NULL,
    enabled BOOLEAN NOT NULL,
    extra TEXT NOT NULL
);
-- An endpoint may be one more of a service of our own: no foreign key.
CREATE TABLE catalog_endpoints (
    id UUID NOT NULL PRIMARY KEY,
    service_id UUID NOT NULL,
    region_id TEXT,
    interface TEXT NOT NULL,
    url TEXT NOT NULL,
    enabled BOOLEAN NOT NULL,
    extra TEXT NOT NULL
);
CREATE INDEX catalog_endpoints_service ON catalog_endpoints (service_id);
CREATE INDEX catalog_endpoints_region ON catalog_endpoints (region_id);

CREATE TABLE registered_limits (
    id UUID NOT NULL PRIMARY KEY,
    service_id UUID NOT NULL,
    region_id TEXT,
    resource_name TEXT NOT NULL,
    default_limit BIGINT NOT NULL,
    description TEXT
);
CREATE UNIQUE INDEX registered_limits_what
    ON registered_limits (service_id, COALESCE(region_id, ''), resource_name);
CREATE TABLE limits (
    id UUID NOT NULL PRIMARY KEY,
    registered_limit_id UUID NOT NULL REFERENCES registered_limits (id),
    -- Exactly one of the two is set, and is owner_id.
    owner_id UUID NOT NULL,
    project_id UUID REFERENCES projects (id) ON DELETE CASCADE,
    domain_id UUID REFERENCES domains (id) ON DELETE CASCADE,
    resource_limit BIGINT NOT NULL,
    description TEXT,
    UNIQUE (registered_limit_id, owner_id)
);
CREATE INDEX limits_project ON limits (project_id);
CREATE INDEX limits_domain ON limits (domain_id);

-- Secrets that users keep here for other programs. The blob is sealed with a key that is not in the database.
CREATE TABLE credentials (
    id UUID NOT NULL PRIMARY KEY,
    user_id UUID NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    project_id UUID REFERENCES projects (id) ON DELETE CASCADE,
    kind TEXT NOT NULL,
    sealed TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX credentials_user ON credentials (user_id, id);
