"""
HTTP addresses: the page.
"""

from django.urls import path
from django.views.generic import TemplateView

urlpatterns = [
    path("", TemplateView.as_view(template_name="demo/index.html"), name="index"),
]
