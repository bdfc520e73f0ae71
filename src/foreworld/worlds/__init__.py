"""Worlds with known truth, in NumPy: pure, batched steps of a state that is saved and restored exactly."""

from foreworld.worlds.balls import Balls as Balls
from foreworld.worlds.catalogue import WORLDS as WORLDS
from foreworld.worlds.catalogue import Entry as Entry
from foreworld.worlds.catalogue import build as build
from foreworld.worlds.catch import Catch as Catch
from foreworld.worlds.double_pendulum import DoublePendulum as DoublePendulum
from foreworld.worlds.fork import Fork as Fork
from foreworld.worlds.linear import Linear as Linear
from foreworld.worlds.lorenz import Lorenz63 as Lorenz63
from foreworld.worlds.lyapunov import Exponents as Exponents
from foreworld.worlds.lyapunov import lyapunov as lyapunov
from foreworld.worlds.maze import MAZES as MAZES
from foreworld.worlds.maze import PointMaze as PointMaze
from foreworld.worlds.pendulum import Pendulum as Pendulum
from foreworld.worlds.push import PushT as PushT
from foreworld.worlds.reach import Reach as Reach
from foreworld.worlds.rooms import TwoRooms as TwoRooms
from foreworld.worlds.simulate import frozen as frozen
from foreworld.worlds.simulate import simulate as simulate
from foreworld.worlds.simulate import thawed as thawed
from foreworld.worlds.tee import Tee as Tee
from foreworld.worlds.world import Acting as Acting
from foreworld.worlds.world import Aiming as Aiming
from foreworld.worlds.world import Ending as Ending
from foreworld.worlds.world import Guided as Guided
from foreworld.worlds.world import World as World
