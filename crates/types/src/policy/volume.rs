//! The policy table of the volume API.

crate::actions! {
    VERSIONS = "volume:versions:list", Public;
    EXTENSIONS = "volume:extensions:list", Authenticated;
    RESOURCE_FILTERS = "volume:resource_filters:list", Authenticated;
    LIMITS = "volume:limits:show", ProjectReader;

    VOLUME_LIST = "volume:volumes:list", ProjectReader;
    VOLUME_CREATE = "volume:volumes:create", ProjectMember;
    VOLUME_SHOW = "volume:volumes:show", ProjectReader;
    VOLUME_UPDATE = "volume:volumes:update", ProjectMember;
    VOLUME_DELETE = "volume:volumes:delete", ProjectMember;
    VOLUME_ACTION = "volume:volumes:action", ProjectMember;
    VOLUME_UPLOAD = "volume:volumes:upload_image", ProjectMember;
    VOLUME_EXTEND = "volume:volumes:extend", ProjectMember;
    VOLUME_REVERT = "volume:volumes:revert", ProjectMember;
    VOLUME_REIMAGE = "volume:volumes:reimage", ProjectMember;
    VOLUME_RESET_STATUS = "volume:volumes:reset_status", Admin;
    VOLUME_FORCE_DELETE = "volume:volumes:force_delete", Admin;
    VOLUME_OBSERVE = "volume:volumes:observe", Node;
    VOLUME_METADATA_READ = "volume:volume_metadata:read", ProjectReader;
    VOLUME_METADATA_WRITE = "volume:volume_metadata:write", ProjectMember;
    VOLUME_ATTACH = "volume:volumes:attach", ProjectMember;
    VOLUME_DETACH = "volume:volumes:detach", ProjectMember;
    VOLUME_DETACH_FORCED = "volume:volumes:force_detach", Admin;
    SNAPSHOT_LIST = "volume:snapshots:list", ProjectReader;
    SNAPSHOT_CREATE = "volume:snapshots:create", ProjectMember;
    SNAPSHOT_SHOW = "volume:snapshots:show", ProjectReader;
    SNAPSHOT_UPDATE = "volume:snapshots:update", ProjectMember;
    SNAPSHOT_DELETE = "volume:snapshots:delete", ProjectMember;
    SNAPSHOT_ACTION = "volume:snapshots:action", Admin;
    SNAPSHOT_METADATA_READ = "volume:snapshot_metadata:read", ProjectReader;
    SNAPSHOT_METADATA_WRITE = "volume:snapshot_metadata:write", ProjectMember;
    ATTACHMENT_LIST = "volume:attachments:list", ProjectReader;
    ATTACHMENT_SHOW = "volume:attachments:show", ProjectReader;
    ATTACHMENT_WRITE = "volume:attachments:write", ProjectMember;

    TYPE_READ = "volume:types:read", Authenticated;
    TYPE_WRITE = "volume:types:write", Admin;
    TYPE_ACCESS = "volume:types:access", Admin;
    TYPE_DEFAULT = "volume:types:project_default", Admin;
    QOS_READ = "volume:qos_specs:read", Admin;
    QOS_WRITE = "volume:qos_specs:write", Admin;

    QUOTA_SHOW = "volume:quotas:show", ProjectReader;
    QUOTA_WRITE = "volume:quotas:write", Admin;
    QUOTA_CLASS_SHOW = "volume:quota_classes:show", Admin;
    QUOTA_CLASS_WRITE = "volume:quota_classes:write", Admin;

    ZONE_LIST = "volume:availability_zones:list", Authenticated;
    POOL_READ = "volume:pools:read", Admin;
    SERVICE_READ = "volume:services:read", Admin;
    SERVICE_WRITE = "volume:services:write", Admin;
    HOST_READ = "volume:hosts:read", Admin;

    TRANSFER_READ = "volume:transfers:read", ProjectReader;
    TRANSFER_CREATE = "volume:transfers:create", ProjectMember;
    TRANSFER_DELETE = "volume:transfers:delete", ProjectMember;
    TRANSFER_ACCEPT = "volume:transfers:accept", ProjectMember;

    GROUP_TYPE_READ = "volume:group_types:read", Authenticated;
    GROUP_TYPE_WRITE = "volume:group_types:write", Admin;
    GROUP_TYPE_SPECS = "volume:group_types:specs", Admin;
    GROUP_READ = "volume:groups:read", ProjectReader;
    GROUP_CREATE = "volume:groups:create", ProjectMember;
    GROUP_UPDATE = "volume:groups:update", ProjectMember;
    GROUP_ACTION = "volume:groups:action", ProjectMember;
    GROUP_DELETE = "volume:groups:delete", ProjectMember;
    GROUP_RESET_STATUS = "volume:groups:reset_status", Admin;
    GROUP_SNAPSHOT_READ = "volume:group_snapshots:read", ProjectReader;
    GROUP_SNAPSHOT_CREATE = "volume:group_snapshots:create", ProjectMember;
    GROUP_SNAPSHOT_DELETE = "volume:group_snapshots:delete", ProjectMember;
    GROUP_SNAPSHOT_RESET_STATUS = "volume:group_snapshots:reset_status", Admin;
    CLUSTER_READ = "volume:clusters:read", Admin;
    CLUSTER_WRITE = "volume:clusters:write", Admin;
    WORKER_CLEANUP = "volume:workers:cleanup", Admin;
    MANAGEABLE_READ = "volume:manageable:read", Admin;
    MANAGEABLE_WRITE = "volume:manageable:write", Admin;

    MESSAGE_READ = "volume:messages:read", ProjectReader;
    MESSAGE_DELETE = "volume:messages:delete", ProjectMember;
}
