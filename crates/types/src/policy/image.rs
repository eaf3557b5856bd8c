//! The policy table of the image API.

crate::actions! {
    VERSIONS = "image:versions:list", Public;
    SCHEMA_GET = "image:schemas:get", Authenticated;
    STORE_LIST = "image:stores:list", Authenticated;
    IMPORT_INFO = "image:import:info", Authenticated;
    USAGE_GET = "image:usage:get", ProjectReader;
    IMAGE_LIST = "image:images:list", ProjectReader;
    IMAGE_GET = "image:images:get", ProjectReader;
    IMAGE_DOWNLOAD = "image:images:download", ProjectReader;
    IMAGE_CREATE = "image:images:create", ProjectMember;
    IMAGE_UPDATE = "image:images:update", ProjectMember;
    IMAGE_DELETE = "image:images:delete", ProjectMember;
    IMAGE_UPLOAD = "image:images:upload", ProjectMember;
    IMAGE_STAGE = "image:images:stage", ProjectMember;
    IMAGE_IMPORT = "image:images:import", ProjectMember;
    TASK_LIST = "image:tasks:list", ProjectReader;
    IMAGE_SNAPSHOT = "image:images:snapshot", ProjectMember;
    IMAGE_PUBLICIZE = "image:images:publicize", Admin;
    IMAGE_COMMUNITIZE = "image:images:communitize", ProjectMember;
    IMAGE_OWNER_SET = "image:images:owner_set", Admin;
    IMAGE_DEACTIVATE = "image:images:deactivate", ProjectMember;
    IMAGE_REACTIVATE = "image:images:reactivate", ProjectMember;
    IMAGE_RECOVER = "image:images:recover", Admin;
    TAG_ADD = "image:tags:add", ProjectMember;
    TAG_DELETE = "image:tags:delete", ProjectMember;
    MEMBER_LIST = "image:members:list", ProjectReader;
    MEMBER_GET = "image:members:get", ProjectReader;
    MEMBER_ADD = "image:members:add", ProjectMember;
    MEMBER_UPDATE = "image:members:update", ProjectMember;
    MEMBER_DELETE = "image:members:delete", ProjectMember;
}
