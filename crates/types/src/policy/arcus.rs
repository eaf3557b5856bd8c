//! The policy table of the native API and of the link to the nodes.

crate::actions! {
    JOIN_TOKEN_CREATE = "arcus:join_tokens:create", Admin;
    CA_READ = "arcus:ca:read", Public;
    NODE_JOIN = "arcus:nodes:join", Public;
    NODE_RENEW = "arcus:nodes:renew", Node;
    NODE_SPEC = "arcus:nodes:spec", Node;
    NODE_LEASE = "arcus:nodes:lease", Node;
    NODE_PROBE = "arcus:nodes:probe", Node;
    NODE_LIST = "arcus:nodes:list", Admin;
    NODE_WATCH = "arcus:nodes:watch", Admin;
    NODE_DRAIN = "arcus:nodes:drain", Admin;
    NODE_RESTORE = "arcus:nodes:restore", Admin;
    CLUSTER_LIST = "arcus:clusters:list", Admin;
    CLUSTER_READ = "arcus:clusters:read", Admin;
    CLUSTER_CREATE = "arcus:clusters:create", Admin;
    CLUSTER_UPDATE = "arcus:clusters:update", Admin;
    CLUSTER_DELETE = "arcus:clusters:delete", Admin;
    CLUSTER_NODE_SET = "arcus:clusters:node_set", Admin;
    TASK_LIST = "arcus:tasks:list", ProjectReader;
    TASK_READ = "arcus:tasks:read", ProjectReader;
    TASK_CANCEL = "arcus:tasks:cancel", ProjectMember;
    TASK_RETRY = "arcus:tasks:retry", ProjectMember;
    NODE_REPORT = "arcus:nodes:report", Node;
    NODE_IMAGE_READ = "arcus:nodes:image_read", Node;
    NODE_IMAGE_WRITE = "arcus:nodes:image_write", Node;
    NODE_RELAY = "arcus:nodes:relay", Node;
    PLACEMENT_READ = "arcus:placement:read", ProjectReader;
    PLACEMENT_READ_NODE = "arcus:placement:read_node", Admin;
    PLACEMENT_EXPLAIN = "arcus:placement:explain", ProjectMember;
    CONSOLE_OPEN = "arcus:consoles:open", Public;
    VERSIONS = "arcus:versions:list", Public;
}
