"""SHA-256 of the 26 tensors of the ImageNet VGG16 without top that Keras publishes.

Float32, little-endian, C order; kernels as (height, width, input, output); layers in network order. Source: the file
``vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5`` (md5 6d6bbae143d832006294945121d1f1fc) of keras.applications,
compared with three independent publications of the same network.
"""

#: Layer → (digest of the kernel, digest of the bias).
IMAGENET_VGG16: dict[str, tuple[str, str]] = {
    "block1_conv1": (
        "564034bfdba3ca76c2787bb27101f4fff7fa318d2fbce72b98ee85a91ac7233c",
        "1ef208fe2fce06d33da14ae4a9710cc88c83b2e6168abd8cc90104dc77e87495",
    ),
    "block1_conv2": (
        "88349446ede864025845492069f0cdd18f8d115a31b334d562d328183235e003",
        "4b72fa1a0ca6aaf269f891d0891074cc4e44a86db77f2684f5711a8c32f292d9",
    ),
    "block2_conv1": (
        "4eedcea5414f4914ff6aacda706e323c946e063fad8d9a5b4efe1379b965273a",
        "9319bfabce800a0e8e5096b050ab25cde25eb505c31d4993a6fa6e1c425201a1",
    ),
    "block2_conv2": (
        "d04e9376fa0603eb67d875ef93b5f04ba0d881e34394a0f7bd629b8acfb7366b",
        "753369cbe1f3df5c2bf733424ce7a58fa7282d3e00f0d401381240df9578d982",
    ),
    "block3_conv1": (
        "61854131434cc09f429e5e5fa7b25e91089fe09b7b55a3989c84937386f6ad80",
        "bfb7228878910873041c5fe390176931f082dd0b3d7215c7015dc7830388c369",
    ),
    "block3_conv2": (
        "0a3ba315ec7a81d9beb336dc768855e3acc5de0dba24ece5584f87233ed6f9e0",
        "2dfcb4bb7f8a1bfe4649c8dea8bdc84e2058eb7258063960e805a13324038464",
    ),
    "block3_conv3": (
        "ace776cfb805a575d895aa86d374bb672d537d5db15419918720d9e17e853de8",
        "bd23367d71708929245d0b1e6109f5e64e08b336d104fda13fd5cec8ba5bee44",
    ),
    "block4_conv1": (
        "1909f6c1a80a6b08535a78e6832c86cbd5289783d568a6e7fe01adacbe943b45",
        "c33c2dcc6290bb0f6bd3377f547c29e247355b2209d0b5aa3f701bacbbeed9b9",
    ),
    "block4_conv2": (
        "1250abdd410cb89b9a5afa7b828b82f6f832939206a24eb561bf7d694afe694a",
        "c36252293630a716724eb391cf4c62c3ca425a524cafa2e99da3199a3585e943",
    ),
    "block4_conv3": (
        "dc4ec7c7bd32f3bc3f5ed61fc641e191b9ca730448e94fcf1062f49c841d2bf3",
        "59a2abf76b13ac1340e953cf668cc9cd923f564f9fa11a8e960ab6d04eb1c4c7",
    ),
    "block5_conv1": (
        "8396e0b82aee60206d48c8aef35928c15f4131f52c9a666ea511943544a9efc1",
        "312ab22d6dece721c2617eeacf7dd5146ca5f165a3d0dc8cbefb3b823f2c5d51",
    ),
    "block5_conv2": (
        "691a5087bbf6fab4bbd6decead1c1c161ba311cbcb269cb6141266b2555eccaf",
        "16bb5bca01eefdf72e95d4234172051876027824f1c838035f5e6a3ce4dbb4fd",
    ),
    "block5_conv3": (
        "5be0ee0f7ddc0de1f3a2fc891c6c1d227a44fcb11dc0a7e24cad96e1d30db32d",
        "384c7a4f72e853a0e0636ce15e30d5133c22238bd8adc37c3bd12ff56939e34f",
    ),
}

#: Digest of all tensors one after the other, kernel before bias.
IMAGENET_VGG16_SHA256 = "d9a27cc1fc7f975ef8cff49180e794ccd7c4bc868ebb49740803b3bbaa8dbefd"
