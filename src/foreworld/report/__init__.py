"""One visual language for reports: pictures, clips, plots and self-contained pages."""

from foreworld.report.clips import Clip as Clip
from foreworld.report.clips import filmstrip as filmstrip
from foreworld.report.clips import gallery as gallery
from foreworld.report.clips import player as player
from foreworld.report.clips import strip as strip
from foreworld.report.html import Html as Html
from foreworld.report.page import Page as Page
from foreworld.report.page import details as details
from foreworld.report.page import figure as figure
from foreworld.report.page import grid as grid
from foreworld.report.page import moving_picture as moving_picture
from foreworld.report.page import paragraph as paragraph
from foreworld.report.page import picture as picture
from foreworld.report.page import section as section
from foreworld.report.page import table as table
from foreworld.report.svg import Line as Line
from foreworld.report.svg import Marker as Marker
from foreworld.report.svg import Plot as Plot
from foreworld.report.svg import Shade as Shade
from foreworld.report.traces import Trace as Trace
from foreworld.report.traces import trace_plots as trace_plots
