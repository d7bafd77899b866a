from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from services.gateway.http.auth import Access, ApiKeys, Caller
from services.gateway.http.errors import problems

router = APIRouter(prefix="/api/api-keys", tags=["API keys"])


class ApiKeyResponse(BaseModel):
    """An API key; its value is never shown."""

    name: str = Field(examples=["support"])
    access: Access


class CurrentApiKeyResponse(ApiKeyResponse):
    playground: bool = Field(description="Whether mock providers can be controlled through this API")


class ApiKeysResponse(BaseModel):
    items: list[ApiKeyResponse]


@router.get("", summary="List the API keys", responses=problems(401, 422))
async def list_api_keys(request: Request) -> ApiKeysResponse:
    """List the names of the configured API keys, each once. There are none if the API is open."""
    keys: ApiKeys = request.app.state.api_keys
    items = [ApiKeyResponse(name=name, access=access) for name, access in sorted(keys.names())]
    return ApiKeysResponse(items=items)


@router.get("/current", summary="Get the API key of the request", responses=problems(401, 422))
async def get_current_api_key(request: Request, caller: Caller) -> CurrentApiKeyResponse:
    """Return the name and the access of the API key that the request was made with."""
    keys: ApiKeys = request.app.state.api_keys
    access = request.state.access if keys else Access.WRITE
    return CurrentApiKeyResponse(name=caller, access=access, playground=request.app.state.has_playground)
