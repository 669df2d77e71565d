// Starts Swagger UI; in a file of its own, so that a Content-Security-Policy can forbid inline scripts.
SwaggerUIBundle({ url: "/openapi.json", dom_id: "#documentation", deepLinking: true });
