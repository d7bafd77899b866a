"""Twilio's error codes. The codes are stable; Twilio may change the messages at any time."""

from http import HTTPStatus

MESSAGES = {
    20001: "Unknown parameters",
    20003: "Authenticate",
    20009: "Resource not complete",
    20404: "The requested resource was not found",
    20429: "Too Many Requests",
    20500: "Internal Server Error",
    20503: "Service Unavailable",
    21211: "Invalid 'To' Phone Number",
    21212: "Invalid 'From' Number",
    21266: "'To' and 'From' number cannot be the same",
    21408: "Permission to send an SMS has not been enabled for the region indicated by the 'To' number",
    21602: "Message body is required",
    21603: "A 'From' phone number is required",
    21604: "A 'To' phone number is required",
    21606: "The 'From' phone number is not a valid, SMS-capable number of this account",
    21609: "Invalid 'StatusCallback' URL",
    21610: "Attempt to send to unsubscribed recipient",
    21611: "The 'From' number has exceeded the maximum number of queued messages",
    21612: "The 'To' number cannot be reached from the 'From' number",
    21614: "'To' number is not a valid mobile number",
    21617: "The message body exceeds the 1600 character limit",
    21620: "Invalid media URL(s)",
    21623: "Number of media files exceeds allowed limit",
    21701: "The Messaging Service does not exist",
    30001: "Queue overflow",
    30002: "Account suspended",
    30003: "Unreachable destination handset",
    30004: "Message blocked",
    30005: "Unknown destination handset",
    30006: "Landline or unreachable carrier",
    30007: "Message filtered",
    30008: "Unknown error",
    30409: "Message is not in a cancelable state",
    90007: "Invalid validity period value",
}


class TwilioError(Exception):
    """An error response.

    Attributes:
        code: Twilio's error code.
        status: The HTTP status.
    """

    def __init__(self, code: int, status: int = HTTPStatus.BAD_REQUEST) -> None:
        super().__init__(code, status)
        self.code = code
        self.status = status

    @property
    def body(self) -> dict[str, object]:
        return {
            "code": self.code,
            "message": MESSAGES.get(self.code, f"Error {self.code}"),
            "more_info": f"https://www.twilio.com/docs/errors/{self.code}",
            "status": self.status,
        }
