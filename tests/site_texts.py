"""What the site and its downloader say of videos that do not come, as recorded."""

from __future__ import annotations

HINT = (
    " Use --cookies-from-browser or --cookies for the authentication. See  "
    "https://github.com/yt-dlp/yt-dlp/wiki/FAQ#how-do-i-pass-cookies-to-yt-dlp  for how to manually pass cookies"
)


BUG = (
    "; please report this issue on  https://github.com/yt-dlp/yt-dlp/issues?q= , filling out the appropriate issue "
    "template. Confirm you are on the latest version using  yt-dlp -U"
)


RECORDED = {
    "rate_limited": (
        "Video unavailable. This content isn't available, try again later. The current session has been rate-limited "
        "by YouTube for up to an hour. It is recommended to use `-t sleep` to add a delay between video requests",
        "This content isn’t available, try again later",
    ),
    "http_429": (
        "Unable to download webpage: HTTP Error 429: Too Many Requests (caused by <HTTPError 429: Too Many Requests>)",
        "unable to download video data: HTTP Error 429: Too Many Requests",
    ),
    "bot_check": (
        f"Sign in to confirm you’re not a bot.{HINT}",
        f"Sign in to confirm you're not a bot.{HINT}",
        "Something. YouTube is requiring a captcha challenge before playback",
        "All player responses are invalid. Your IP is likely being blocked by Youtube",
        "This content isn’t available.",
        "Video unavailable. This content isn't available",
    ),
    "age": (
        f"Sign in to confirm your age. This video may be inappropriate for some users.{HINT}",
        "This video is age-restricted and only available on YouTube",
    ),
    "private": (
        f"Private video. Sign in if you've been granted access to this video.{HINT}",
        "This video is private. If the owner of this video has granted you access, please sign in.",
    ),
    "members": (
        "Join this channel to get access to members-only content like this video, and other exclusive perks.",
        "This video is available to this channel's members on level: Gold (or any higher level). Join this channel to "
        "get access to members-only content and other exclusive perks.",
        "Join this channel from your computer or Android app to get access to members-only content",
        "This video is only available to Music Premium members",
    ),
    "geo": (
        "The uploader has not made this video available in your country\nThis video is available in Germany, France.\n"
        "You might want to use a VPN or a proxy server (with --proxy) to workaround.",
        "This video is not available from your location due to geo restriction",
        "Video unavailable. This video contains content from SME, who has blocked it in your country on copyright "
        "grounds",
        "Video unavailable. The uploader has not made this video available in your country",
    ),
    "copyright": (
        "Video unavailable. This video is no longer available due to a copyright claim by Someone Ltd.",
        "Video unavailable. This video contains content from WMG, who has blocked it on copyright grounds",
        "Video unavailable. This video contains content from A and B, one or more of whom have blocked it on copyright "
        "grounds",
        "Video unavailable. It was removed following a copyright removal request by Someone",
    ),
    "terminated": (
        "Video unavailable. This video is no longer available because the YouTube account associated with this video "
        "has been terminated.",
        "This video is no longer available because the uploader has closed their YouTube account.",
    ),
    "removed": (
        "Video unavailable. This video has been removed by the uploader",
        "This video has been removed for violating YouTube's Terms of Service",
        "This video has been removed for violating YouTube’s Community Guidelines",
        "This video has been removed for violating YouTube's policy on hate speech. Learn more about combating hate "
        "speech in your country.",
        "This video has been removed for violating YouTube's policy on nudity or sexual content.",
        "This video has been removed for violating YouTube's policy on violent or graphic content",
        "This video isn’t available anymore",
        "This video does not exist.",
        "Unable to download webpage: HTTP Error 404: Not Found (caused by <HTTPError 404: Not Found>)",
    ),
    "live": (
        "This live event will begin in 3 days.",
        "Premieres in 12 hours",
        "Premiere will begin shortly",
        "This live stream recording is not available.",
        "The channel is not currently live",
        "This live event has not ended",
    ),
    "login": (
        f"Please sign in.{HINT}",
        "Sign in to continue",
        "Login details are needed to download this content",
        "Watch on the latest version of YouTube. The following content is not available on this app.",
    ),
    "drm": ("This video is DRM protected",),
    "unavailable": (
        "Video unavailable",
        "Video unavailable. This video is not available",
        "This video is not available",
        "This video is unavailable",
    ),
    "http_403": (
        "unable to download video data: HTTP Error 403: Forbidden",
        "unable to download video data: HTTP Error 410: Gone",
    ),
    "format": (
        "Requested format is not available. Use --list-formats for a list of available formats",
        f"No video formats found!{BUG}",
    ),
    "network": (
        "unable to download video data: HTTP Error 503: Service Unavailable",
        "Unable to download API page: HTTP Error 500: Internal Server Error (caused by <HTTPError 500>)",
        "unable to download video data: Read timed out",
        "The read operation timed out",
        "1024 bytes read, 2048 more expected",
        "Did not get any data blocks",
        "Downloaded 1024 bytes, expected 4096 bytes",
        "Unable to download webpage: [Errno 111] Connection refused (caused by TransportError('Connection refused'))",
        "Unable to download webpage: Failed to resolve 'x' ([Errno -3] Temporary failure in name resolution)",
        "\r[download] Got error: Connection reset by peer. Giving up after 10 retries",
    ),
    "disk": (
        "unable to write data: [Errno 28] No space left on device",
        "unable to open for writing: [Errno 122] Disk quota exceeded",
        "Postprocessing: ffmpeg not found. Please install or provide the path using --ffmpeg-location",
        "Postprocessing: Conversion failed!",
    ),
    "extractor": (
        f"Unable to extract yt initial data{BUG}",
        f"Failed to extract any player response{BUG}",
        "Unsupported URL: http://127.0.0.1/page",
        "the address led to a page instead of media",
    ),
    "unknown": ("The owl has left the building", ""),
}
