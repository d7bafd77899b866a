# One image for the migrations, the provisioning, every service and the mock providers; the command selects one.
FROM python:3.13-slim

ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
# A new volume that is mounted at /media belongs to the user, like the folder.
RUN useradd --system --uid 10001 --no-create-home app && install --directory --owner=10001 /media

# pip reads these as environment variables while it installs; they do not become part of the image.
ARG PIP_INDEX_URL
ARG PIP_TRUSTED_HOST
ARG PIP_CERT
# This is a separate layer, so that a code change does not reinstall the packages. Only wheels are used,
# because there is no compiler.
COPY requirements.lock .
RUN pip install --no-cache-dir --disable-pip-version-check --require-hashes --only-binary :all: \
    -r requirements.lock

COPY pyproject.toml LICENSE alembic.ini ./
COPY migrations migrations
COPY mock_providers mock_providers
COPY shared shared
COPY services services

USER 10001
