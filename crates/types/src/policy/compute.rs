//! The policy table of the compute API.

crate::actions! {
    VERSIONS = "compute:versions:list", Public;
    EXTENSIONS = "compute:extensions:list", Authenticated;
    LIMITS = "compute:limits:show", ProjectReader;

    SERVER_CREATE = "compute:servers:create", ProjectMember;
    SERVER_CREATE_ON_NODE = "compute:servers:create:forced_host", Admin;
    SERVER_LIST = "compute:servers:list", ProjectReader;
    SERVER_SHOW = "compute:servers:show", ProjectReader;
    SERVER_UPDATE = "compute:servers:update", ProjectMember;
    SERVER_DELETE = "compute:servers:delete", ProjectMember;
    SERVER_ACTION = "compute:servers:action", ProjectMember;
    SERVER_REBOOT = "compute:servers:reboot", ProjectMember;
    SERVER_START = "compute:servers:start", ProjectMember;
    SERVER_STOP = "compute:servers:stop", ProjectMember;
    SERVER_PAUSE = "compute:servers:pause", ProjectMember;
    SERVER_SUSPEND = "compute:servers:suspend", ProjectMember;
    SERVER_REBUILD = "compute:servers:rebuild", ProjectMember;
    SERVER_RESIZE = "compute:servers:resize", ProjectMember;
    SERVER_SNAPSHOT = "compute:servers:create_image", ProjectMember;
    SERVER_LOCK = "compute:servers:lock", ProjectMember;
    SERVER_PASSWORD = "compute:servers:change_password", ProjectMember;
    SERVER_RESCUE = "compute:servers:rescue", ProjectMember;
    SERVER_SHELVE = "compute:servers:shelve", ProjectMember;
    SERVER_SHELVE_OFFLOAD = "compute:servers:shelve_offload", Admin;
    SERVER_UNSHELVE_TO_NODE = "compute:servers:unshelve_to_host", Admin;
    SERVER_BACKUP = "compute:servers:create_backup", ProjectMember;
    SERVER_RESTORE = "compute:servers:restore", ProjectMember;
    SERVER_MIGRATE = "compute:servers:migrate", Admin;
    SERVER_EVACUATE = "compute:servers:evacuate", Admin;
    SERVER_NETWORK_INJECT = "compute:servers:inject_network_info", Admin;
    SERVER_DIAGNOSTICS = "compute:server_diagnostics:show", Admin;
    SERVER_MIGRATIONS = "compute:server_migrations:read", Admin;
    SERVER_PASSWORD_READ = "compute:server_password:read", ProjectReader;
    SERVER_PASSWORD_CLEAR = "compute:server_password:clear", ProjectMember;
    SERVER_EVENTS = "compute:server_external_events:create", Admin;
    SERVER_CONSOLE_TOKEN = "compute:console_auth_tokens:show", Admin;
    SERVER_CONSOLE = "compute:servers:console", ProjectMember;
    SERVER_METADATA_READ = "compute:server_metadata:read", ProjectReader;
    SERVER_METADATA_WRITE = "compute:server_metadata:write", ProjectMember;
    SERVER_TAGS_READ = "compute:server_tags:read", ProjectReader;
    SERVER_TAGS_WRITE = "compute:server_tags:write", ProjectMember;
    SERVER_SECURITY_GROUPS_READ = "compute:server_security_groups:read", ProjectReader;
    SERVER_SECURITY_GROUPS_WRITE = "compute:server_security_groups:write", ProjectMember;
    SERVER_INTERFACES_READ = "compute:server_interfaces:read", ProjectReader;
    SERVER_INTERFACES_WRITE = "compute:server_interfaces:write", ProjectMember;
    SERVER_VOLUMES_READ = "compute:server_volumes:read", ProjectReader;
    SERVER_VOLUMES_WRITE = "compute:server_volumes:write", ProjectMember;
    SERVER_ACTIONS_READ = "compute:server_actions:read", ProjectReader;
    SERVER_RESET_STATE = "compute:servers:reset_state", Admin;
    SERVER_OBSERVE = "compute:servers:observe", Node;

    SERVER_GROUP_READ = "compute:server_groups:read", ProjectReader;
    SERVER_GROUP_WRITE = "compute:server_groups:write", ProjectMember;

    FLAVOR_READ = "compute:flavors:read", Authenticated;
    FLAVOR_WRITE = "compute:flavors:write", Admin;
    FLAVOR_ACCESS = "compute:flavors:access", Admin;

    KEYPAIR_READ = "compute:keypairs:read", SameUser;
    KEYPAIR_WRITE = "compute:keypairs:write", SameUser;

    QUOTA_SHOW = "compute:quotas:show", ProjectReader;
    QUOTA_DEFAULTS = "compute:quotas:defaults", Authenticated;
    QUOTA_WRITE = "compute:quotas:write", Admin;
    USAGE_SHOW = "compute:usage:show", ProjectReader;
    USAGE_LIST = "compute:usage:list", Admin;

    QUOTA_CLASS = "compute:quota_classes:show", Admin;
    QUOTA_CLASS_WRITE = "compute:quota_classes:write", Admin;
    AGGREGATE_READ = "compute:aggregates:read", Admin;
    AGGREGATE_WRITE = "compute:aggregates:write", Admin;
    MIGRATION_LIST = "compute:migrations:list", Admin;
    AUDIT_LOG = "compute:instance_usage_audit_log:list", Admin;
    NODE_READ = "compute:hosts:read", Admin;

    ZONE_LIST = "compute:availability_zones:list", Authenticated;
    ZONE_DETAIL = "compute:availability_zones:detail", Admin;
    HYPERVISOR_READ = "compute:hypervisors:read", Admin;
    SERVICE_READ = "compute:services:read", Admin;
    SERVICE_WRITE = "compute:services:write", Admin;
    SERVICE_DELETE = "compute:services:delete", Admin;
}
