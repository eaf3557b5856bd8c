//! The policy table of the identity API.
//!
//! `Manager` here means a manager of the domain that the target is in; beyond the table, the identity service lets such
//! a manager give only the roles that it holds itself, and touch nobody who reaches beyond the domain.

crate::actions! {
    VERSIONS = "identity:versions:list", Public;

    TOKEN_CREATE = "identity:tokens:create", Public;
    TOKEN_GET = "identity:tokens:get", SameUser;
    TOKEN_DELETE = "identity:tokens:delete", SameUser;
    CATALOG_GET = "identity:catalog:get", Authenticated;
    OWN_SCOPES_LIST = "identity:own_scopes:list", Authenticated;

    DOMAIN_CREATE = "identity:domains:create", Admin;
    DOMAIN_LIST = "identity:domains:list", DomainReader;
    DOMAIN_GET = "identity:domains:get", DomainReader;
    DOMAIN_UPDATE = "identity:domains:update", Admin;
    DOMAIN_DELETE = "identity:domains:delete", Admin;

    PROJECT_CREATE = "identity:projects:create", Manager;
    PROJECT_LIST = "identity:projects:list", DomainReader;
    PROJECT_GET = "identity:projects:get", ProjectReader;
    PROJECT_UPDATE = "identity:projects:update", Manager;
    PROJECT_DELETE = "identity:projects:delete", Manager;

    USER_CREATE = "identity:users:create", Manager;
    USER_LIST = "identity:users:list", DomainReader;
    USER_GET = "identity:users:get", DomainReader;
    USER_UPDATE = "identity:users:update", Manager;
    USER_DELETE = "identity:users:delete", Manager;
    USER_PASSWORD_CHANGE = "identity:users:password_change", Public;
    USER_PROJECTS_LIST = "identity:users:projects_list", DomainReader;
    USER_GROUPS_LIST = "identity:users:groups_list", DomainReader;

    GROUP_CREATE = "identity:groups:create", Manager;
    GROUP_LIST = "identity:groups:list", DomainReader;
    GROUP_GET = "identity:groups:get", DomainReader;
    GROUP_UPDATE = "identity:groups:update", Manager;
    GROUP_DELETE = "identity:groups:delete", Manager;
    GROUP_USERS_LIST = "identity:groups:users_list", DomainReader;
    GROUP_USER_CHECK = "identity:groups:user_check", DomainReader;
    GROUP_USER_ADD = "identity:groups:user_add", Manager;
    GROUP_USER_REMOVE = "identity:groups:user_remove", Manager;

    ROLE_CREATE = "identity:roles:create", Admin;
    ROLE_LIST = "identity:roles:list", Authenticated;
    ROLE_GET = "identity:roles:get", Authenticated;
    ROLE_UPDATE = "identity:roles:update", Admin;
    ROLE_DELETE = "identity:roles:delete", Admin;

    ASSIGNMENT_LIST = "identity:role_assignments:list", DomainReader;
    ASSIGNMENT_CHECK = "identity:role_assignments:check", DomainReader;
    ASSIGNMENT_CREATE = "identity:role_assignments:create", Manager;
    ASSIGNMENT_DELETE = "identity:role_assignments:delete", Manager;

    APPLICATION_CREDENTIAL_CREATE = "identity:application_credentials:create", SameUser;
    APPLICATION_CREDENTIAL_LIST = "identity:application_credentials:list", SameUser;
    APPLICATION_CREDENTIAL_GET = "identity:application_credentials:get", SameUser;
    APPLICATION_CREDENTIAL_DELETE = "identity:application_credentials:delete", SameUser;
    ACCESS_RULE_LIST = "identity:access_rules:list", SameUser;
    ACCESS_RULE_GET = "identity:access_rules:get", SameUser;
    ACCESS_RULE_DELETE = "identity:access_rules:delete", SameUser;

    TRUST_CREATE = "identity:trusts:create", SameUser;
    TRUST_LIST = "identity:trusts:list", SameUser;
    TRUST_GET = "identity:trusts:get", SameUser;
    TRUST_DELETE = "identity:trusts:delete", SameUser;

    CREDENTIAL_CREATE = "identity:credentials:create", SameUser;
    CREDENTIAL_LIST = "identity:credentials:list", SameUser;
    CREDENTIAL_GET = "identity:credentials:get", SameUser;
    CREDENTIAL_UPDATE = "identity:credentials:update", SameUser;
    CREDENTIAL_DELETE = "identity:credentials:delete", SameUser;

    REGION_CHANGE = "identity:regions:change", Admin;
    SERVICE_CHANGE = "identity:services:change", Admin;
    ENDPOINT_CHANGE = "identity:endpoints:change", Admin;

    REGISTERED_LIMIT_CREATE = "identity:registered_limits:create", Admin;
    REGISTERED_LIMIT_GET = "identity:registered_limits:get", Authenticated;
    REGISTERED_LIMIT_UPDATE = "identity:registered_limits:update", Admin;
    REGISTERED_LIMIT_DELETE = "identity:registered_limits:delete", Admin;
    LIMIT_CREATE = "identity:limits:create", Admin;
    LIMIT_LIST = "identity:limits:list", Authenticated;
    LIMIT_MODEL_GET = "identity:limits:model", Authenticated;
    LIMIT_UPDATE = "identity:limits:update", Admin;
    LIMIT_DELETE = "identity:limits:delete", Admin;
}
